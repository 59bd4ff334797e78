"""What is trained, apart from the optimizer that trains it."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax

from optax_extras.tuning._batches import Batches


class Goal(NamedTuple):
    """What optimizers are compared by, after their last step.

    Attributes:
      metric: one of the task's metrics; or ``"loss"``, the mean of the mini-batches'
        since the last evaluation, or ``"mean_loss"``, that since the first step.
      mode: whether it is to be low or high.
    """

    metric: str = "loss"
    mode: Literal["min", "max"] = "min"


_LOSS = Goal()


@dataclasses.dataclass(frozen=True)
class Task:
    """A model, its data and its metrics; every function can be traced by JAX.

    Attributes:
      name: a short name.
      init: a key to initial parameters.
      batches: where the mini-batches come from: `minibatches`, `batches_of_step`, or a
        `Batches` of your own.
      loss: parameters, a mini-batch and a key, one for each step, to a scalar, which is
        minimised.
      evaluate: parameters to named scalars over the whole data.
      goal: which of these optimizers are compared by.
    """

    name: str
    init: Callable[[jax.Array], Any]
    batches: Batches
    loss: Callable[[Any, Any, jax.Array], jax.Array]
    evaluate: Callable[[Any], dict[str, jax.Array]]
    goal: Goal = _LOSS
