"""`Task`: everything about a training run but its optimizer."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax

from optax_extras.tasks._batches import Batches

# Whether lower or higher values of a metric are better.
Mode = Literal["min", "max"]


class Goal(NamedTuple):
    """Metric by which optimizers are compared, after their last step.

    Attributes:
      metric: one of the task's metrics; or ``"loss"``, the mean loss of the
        mini-batches since the last evaluation; or ``"mean_loss"``, that since the first
        step.
      mode: ``"min"`` if low values are better, ``"max"`` if high values are.
    """

    metric: str = "loss"
    mode: Mode = "min"


_LOSS = Goal()


@dataclasses.dataclass(frozen=True)
class Task:
    """Model, data and metrics, as functions that JAX can trace.

    Attributes:
      name: short name, used in messages and pictures.
      init: maps a key to initial parameters.
      batches: source of mini-batches: `minibatches`, `batches_of_step`, or your own
        `Batches`.
      loss: maps parameters, a mini-batch and the step's key to the scalar to minimise.
      evaluate: maps parameters to named scalars, the task's metrics.
      goal: metric by which optimizers are compared.
    """

    name: str
    init: Callable[[jax.Array], Any]
    batches: Batches
    loss: Callable[[Any, Any, jax.Array], jax.Array]
    evaluate: Callable[[Any], dict[str, jax.Array]]
    goal: Goal = _LOSS
