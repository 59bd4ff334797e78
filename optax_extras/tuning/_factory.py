"""Optimizer factories: which arguments they take and whether they need a key."""

import inspect
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import optax

MakeOptimizer = Callable[..., optax.GradientTransformation]


def check_factory(
    make_optimizer: MakeOptimizer,
    names: Collection[str],
    called: str = "`make_optimizer`",
) -> None:
    """Checks that a factory can be called with some arguments, and `key` if it asks.

    Args:
      make_optimizer: the factory.
      names: names of the arguments that it will be given.
      called: name of the factory in messages.

    Raises:
      TypeError: it does not take one of them, or needs another.
    """
    parameters = inspect.signature(make_optimizer).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in names:
            if name not in parameters:
                raise TypeError(
                    f"{called} must take `{name}`; it takes {', '.join(parameters)}"
                )
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for parameter in parameters.values():
        given = parameter.name in names or parameter.name == "key"
        optional = (
            parameter.default is not parameter.empty or parameter.kind in variadic
        )
        if not (given or optional):
            expected = ", ".join(f"`{name}`" for name in names)
            raise TypeError(
                f"{called} must need no argument but {expected} and `key`, got"
                f" `{parameter.name}`"
            )


def keyed(make_optimizer: MakeOptimizer, key: jax.Array) -> Callable[..., Any]:
    """Factory of the whole optimizer, which passes `key` where that is an argument."""
    if "key" in inspect.signature(make_optimizer).parameters:
        make_optimizer = partial(make_optimizer, key=key)
    return lambda **values: optax.with_extra_args_support(make_optimizer(**values))
