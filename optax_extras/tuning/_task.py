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
      plan: a key, a first step, int32[], and a number of steps to what tells their
        mini-batches apart, such as indices, stacked along a leading axis. One key gives
        one order of the data, whatever the optimizer and the calls it is asked in.
      batch: one step's entry of the plan to its mini-batch.
      loss: parameters and a mini-batch to a scalar, which is minimised.
      evaluate: parameters to named scalars over the whole data.
    """

    name: str
    init: Callable[[jax.Array], Any]
    plan: Callable[[jax.Array, jax.Array, int], Any]
    batch: Callable[[Any], Any]
    loss: Callable[[Any, Any], jax.Array]
    evaluate: Callable[[Any], dict[str, jax.Array]]
