"""Optimizer factories: which arguments they take and whether they need a key."""

import inspect
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import optax

from optax_extras._core.importing import check_call

MakeOptimizer = Callable[..., optax.GradientTransformation]


def check_factory(make_optimizer: MakeOptimizer, names: Collection[str]) -> None:
    """Checks that a factory can be called with some arguments, and `key` if it asks.

    Args:
      make_optimizer: the factory.
      names: names of the arguments that it will be given.

    Raises:
      TypeError: it cannot be called, does not take one of them, or needs another.
    """
    advice = "bind it with `functools.partial`"
    try:
        check_call("`make_optimizer`", make_optimizer, names, ["key"], advice)
    except ValueError as error:
        raise TypeError(str(error)) from None


def keyed(make_optimizer: MakeOptimizer, key: jax.Array) -> Callable[..., Any]:
    """Factory of the whole optimizer, which passes `key` where that is an argument."""
    if "key" in inspect.signature(make_optimizer).parameters:
        make_optimizer = partial(make_optimizer, key=key)

    def make(**values: Any) -> Any:
        tx = make_optimizer(**values)
        if not all(callable(getattr(tx, name, None)) for name in ("init", "update")):
            raise TypeError(
                "an optimizer's factory must return a GradientTransformation, got"
                f" {tx!r}"
            )
        return optax.with_extra_args_support(tx)

    return make
