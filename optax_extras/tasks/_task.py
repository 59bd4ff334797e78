"""`Task`: everything about a training run but its optimizer."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax

from optax_extras.tasks._batches import Batches

# Whether lower or higher values of a metric are better.
Mode = Literal["min", "max"]


@dataclasses.dataclass(frozen=True)
class Goal:
    """Metrics that choose hyperparameters and judge the choice, after the last step.

    A metric is one of the task's metrics; or ``"loss"``, the mean loss of the
    mini-batches since the last evaluation; or ``"mean_loss"``, that since the first
    step.

    Attributes:
      metric: metric by which hyperparameters are chosen, such as a validation loss.
      mode: ``"min"`` if low values are better, ``"max"`` if high values are.
      reported: metric of the same mode by which optimizers are then compared, such as a
        test loss; by default ``metric``.

    Raises:
      TypeError: a metric is not a string.
      ValueError: the mode is neither ``"min"`` nor ``"max"``.
    """

    metric: str = "loss"
    mode: Mode = "min"
    reported: str = ""

    def __post_init__(self) -> None:
        """Checks the fields, and lets `reported` be `metric` where it is not given."""
        object.__setattr__(self, "reported", self.reported or self.metric)
        for name in ("metric", "reported"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TypeError(f"`{name}` must be the name of a metric, got {value!r}")
        if self.mode not in get_args(Mode):
            raise ValueError(f"`mode` must be 'min' or 'max', got {self.mode!r}")


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
      goal: metrics by which hyperparameters are chosen and optimizers are compared.

    Raises:
      TypeError: an attribute is of another type.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, optax
      >>> from optax_extras.tuning import Goal, Task, minibatches, sweep
      >>> x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
      >>> y = x @ np.float32([1, -2, 3])
      >>> def loss(weights, batch, key):
      ...     x, y = batch
      ...     return jnp.mean((x @ weights - y) ** 2)
      >>> task = Task(
      ...     name="regression",
      ...     init=lambda key: jnp.zeros(3),
      ...     batches=minibatches((x, y), batch_size=16),
      ...     loss=loss,
      ...     evaluate=lambda weights: {"error": loss(weights, (x, y), None)},
      ...     goal=Goal("error", "min"),
      ... )
      >>> rates = {"learning_rate": [0.01, 0.1]}
      >>> result = sweep(task, optax.sgd, rates, steps=50, seeds=3)
      >>> result.best()
      {'learning_rate': 0.1}
      >>> first, *_, last = result.metrics["error"][1, 0]
      >>> bool(last < 0.01 * first)
      True
    """

    name: str
    init: Callable[[jax.Array], Any]
    batches: Batches
    loss: Callable[[Any, Any, jax.Array], jax.Array]
    evaluate: Callable[[Any], dict[str, jax.Array]]
    goal: Goal = _LOSS

    def __post_init__(self) -> None:
        """Checks the types of the attributes."""
        function: Any = Callable
        kinds = {"name": str, "init": function, "batches": Batches, "loss": function}
        kinds |= {"evaluate": function, "goal": Goal}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(
                    f"`{name}` of a Task must be a {kind.__name__}, got {value!r}"
                )
