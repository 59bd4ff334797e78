"""Loading of what users name: parameters, or whatever a function makes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from optax_extras._core.importing import cause, check_call, load


def parameters(text: str) -> Any:
    """The tree that PARAMS names.

    Args:
      text: where a tree is, or a function that returns one, which is only traced;
        perhaps with arguments.

    Raises:
      ValueError: it cannot be loaded or made.
    """
    return made("PARAMS", text, jax.eval_shape)


def made(called: str, text: str, make: Callable[[Any], Any]) -> Any:
    """An object, or what a function makes, to which arguments may be given."""
    found, arguments = load(text, {}, called)
    # A model of Equinox is a tree of parameters that can also be called.
    is_function = callable(found) and jax.tree.leaves(found) == [found]
    if not is_function and not arguments:
        return found
    check_call(repr(text), found, arguments)
    try:
        return make(partial(found, **arguments))
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"cannot make {called} with {text!r}: {cause(error)}"
        ) from error
