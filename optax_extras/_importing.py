"""Objects that users name on a command line."""

import importlib
import sys
from typing import Any


def load_attribute(target: str) -> Any:
    """The object of ``module:attribute``.

    The module is looked for in the current folder too; the attribute may be dotted.

    Raises:
      ValueError: the target is malformed, or there is no such module or attribute.
    """
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"{target!r} is not of the form MODULE:ATTRIBUTE")
    sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot load {target!r}: {error}") from error
    finally:
        sys.path.remove("")
    return found
