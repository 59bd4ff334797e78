"""Calls of functions that users write: what they must take, and notes on failures."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax


def check_takes(
    function: Callable[..., Any], called: str, arguments: Sequence[str]
) -> None:
    """Checks that a function can be called with some positional arguments.

    Args:
      function: the function.
      called: name of the function in messages.
      arguments: what each argument is, in words.

    Raises:
      TypeError: it takes others.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have no signature
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(
            f"{called} is called with ({', '.join(arguments)}), but it takes"
            f" {signature}: {error}"
        ) from None


@contextlib.contextmanager
def noted(called: str, *arguments: Any) -> Iterator[None]:
    """Adds to an exception which function was called, and with what.

    Args:
      called: name of the function.
      *arguments: its arguments.
    """
    try:
        yield
    except Exception as error:
        given = ", ".join(describe(argument) for argument in arguments)
        error.add_note(f"{called} was traced by JAX with the arguments {given}")
        raise


def describe(tree: Any) -> str:
    """Dtypes and shapes of a tree's arrays, and the types of its other leaves."""

    def leaf(x: Any) -> str:
        if hasattr(x, "dtype") and hasattr(x, "shape"):
            return f"{x.dtype}{list(x.shape)}"
        return type(x).__name__

    return str(jax.tree.map(leaf, tree)).replace("'", "")
