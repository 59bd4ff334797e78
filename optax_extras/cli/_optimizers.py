"""The optimizers that `compare` knows by name."""

import dataclasses
from collections.abc import Callable
from functools import partial

import optax

import optax_extras


@dataclasses.dataclass(frozen=True)
class Choice:
    """An optimizer and its learning rate on a standardised task.

    Attributes:
      make: learning rate and seed of its noise, if any, to the optimizer.
      learning_rate: the default.
    """

    make: Callable[[float, int], optax.GradientTransformation]
    learning_rate: float


def _without_noise(
    make: Callable[[float], optax.GradientTransformation],
) -> Callable[[float, int], optax.GradientTransformation]:
    return lambda learning_rate, seed: make(learning_rate)


OPTIMIZERS = {
    "sgd": Choice(_without_noise(optax.sgd), 0.1),
    "noisy-sgd": Choice(lambda rate, seed: optax_extras.noisy_sgd(rate, key=seed), 0.1),
    "momentum": Choice(_without_noise(optax_extras.momentum_sgd), 0.01),
    "nesterov": Choice(
        _without_noise(partial(optax_extras.momentum_sgd, nesterov=True)), 0.01
    ),
    "momentum-corrected": Choice(
        _without_noise(partial(optax_extras.momentum_sgd, bias_correction=True)), 0.01
    ),
    "adam": Choice(_without_noise(optax.adam), 0.001),
    "adasmooth": Choice(_without_noise(optax_extras.adasmooth), 0.001),
}
