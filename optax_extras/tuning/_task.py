"""What is trained, apart from the optimizer that trains it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Task:
    """A model, its data and its metrics; every function can be traced by JAX.

    Attributes:
      name: a short name.
      init: a key to initial parameters.
      batch: a key and a step, int32[], to the mini-batch of that step. One key gives
        one order of the data, whatever the optimizer.
      loss: parameters and a mini-batch to a scalar, which is minimised.
      evaluate: parameters to named scalars over the whole data.
    """

    name: str
    init: Callable[[jax.Array], Any]
    batch: Callable[[jax.Array, jax.Array], Any]
    loss: Callable[[Any, Any], jax.Array]
    evaluate: Callable[[Any], dict[str, jax.Array]]
