"""Loading of objects that users name as ``module:attribute``."""

import importlib
import sys
from typing import Any


def load_attribute(target: str) -> Any:
    """Loads the object at ``module:attribute``.

    Args:
      target: module, which is also searched for in the current folder, and attribute,
        which may be dotted.

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
