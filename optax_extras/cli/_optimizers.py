"""The optimizers that the command knows by name, and how a user's own is found."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import optax

import optax_extras
from optax_extras._importing import load_attribute

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "noisy-sgd": optax_extras.noisy_sgd,
    "momentum": optax_extras.momentum_sgd,
    "nesterov": partial(optax_extras.momentum_sgd, nesterov=True),
    "momentum-corrected": partial(optax_extras.momentum_sgd, bias_correction=True),
    "adam": optax.adam,
    "adamw": optax.adamw,
    "adasmooth": optax_extras.adasmooth,
}


def load_factory(name: str) -> Callable[..., optax.GradientTransformation]:
    """The factory of a known name, or of ``module:function``.

    The module is looked for in the current folder too.

    Raises:
      ValueError: there is no such function, it takes no ``learning_rate``, or it needs
        more than that and a ``key``.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    if ":" not in name:
        raise ValueError(
            f"{name!r} is neither MODULE:FACTORY nor one of {', '.join(OPTIMIZERS)}"
        )
    found: Any = load_attribute(name)
    parameters = inspect.signature(found).parameters
    if "learning_rate" not in parameters:
        raise ValueError(f"{name!r} must take `learning_rate`")
    for parameter in parameters.values():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if not optional and parameter.name not in ("learning_rate", "key"):
            raise ValueError(
                f"{name!r} must need no argument but `learning_rate` and `key`, got"
                f" `{parameter.name}`"
            )
    return found  # type: ignore[no-any-return]
