"""Optimizers that the command knows by name, and loading of others."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import optax

import optax_extras
from optax_extras._core.importing import load_attribute
from optax_extras.tuning._factory import MakeOptimizer, check_factory

OPTIMIZERS: Mapping[str, MakeOptimizer] = {
    "sgd": optax.sgd,
    "noisy-sgd": optax_extras.noisy_sgd,
    "momentum": optax_extras.momentum_sgd,
    "nesterov": partial(optax_extras.momentum_sgd, nesterov=True),
    "momentum-corrected": partial(optax_extras.momentum_sgd, bias_correction=True),
    "adam": optax.adam,
    "adamw": optax.adamw,
    "adasmooth": optax_extras.adasmooth,
}


def load_factory(name: str) -> MakeOptimizer:
    """Loads the factory of an optimizer.

    Args:
      name: one of `OPTIMIZERS`, or ``module:function``; modules are also searched for
        in the current folder.

    Raises:
      ValueError: there is no such function, it does not take ``learning_rate``, or it
        needs arguments besides that and ``key``.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    if ":" not in name:
        raise ValueError(
            f"{name!r} is neither MODULE:FACTORY nor one of {', '.join(OPTIMIZERS)}"
        )
    found: Any = load_attribute(name)
    try:
        check_factory(found, ["learning_rate"], repr(name))
    except TypeError as error:
        raise ValueError(str(error)) from error
    return found  # type: ignore[no-any-return]
