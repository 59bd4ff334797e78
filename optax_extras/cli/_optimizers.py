"""The optimizers that the command knows by name, and how a user's own is found."""

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import optax

import optax_extras
from optax_extras._importing import load_attribute


@dataclasses.dataclass(frozen=True)
class Choice:
    """An optimizer and its learning rate on a standardised task.

    Attributes:
      factory: takes ``learning_rate``, and ``key`` where it draws.
      learning_rate: the default.
    """

    factory: Callable[..., optax.GradientTransformation]
    learning_rate: float

    def make(self, learning_rate: float, seed: int) -> optax.GradientTransformation:
        """The optimizer; the seed is for its noise, if any."""
        takes_key = "key" in inspect.signature(self.factory).parameters
        own = {"key": seed} if takes_key else {}
        return self.factory(learning_rate=learning_rate, **own)


OPTIMIZERS = {
    "sgd": Choice(optax.sgd, 0.1),
    "noisy-sgd": Choice(optax_extras.noisy_sgd, 0.1),
    "momentum": Choice(optax_extras.momentum_sgd, 0.01),
    "nesterov": Choice(partial(optax_extras.momentum_sgd, nesterov=True), 0.01),
    "momentum-corrected": Choice(
        partial(optax_extras.momentum_sgd, bias_correction=True), 0.01
    ),
    "adam": Choice(optax.adam, 0.001),
    "adasmooth": Choice(optax_extras.adasmooth, 0.001),
}


def load_factory(name: str) -> Callable[..., optax.GradientTransformation]:
    """The factory of a known name, or of ``module:function``.

    The module is looked for in the current folder too.

    Raises:
      ValueError: there is no such function, or it takes no ``learning_rate``.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name].factory
    if ":" not in name:
        raise ValueError(
            f"{name!r} is neither MODULE:FACTORY nor one of {', '.join(OPTIMIZERS)}"
        )
    found: Any = load_attribute(name)
    if "learning_rate" not in inspect.signature(found).parameters:
        raise ValueError(f"{name!r} must take `learning_rate`")
    return found  # type: ignore[no-any-return]
