"""Several optimizers by the same grid, seeds and steps."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optax_extras.tuning._result import SweepResult
from optax_extras.tuning._task import Goal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# How much of the way from the first value to the best one the target is.
TARGET = 0.95


class Summary(NamedTuple):
    """An optimizer with its best hyperparameters.

    Attributes:
      optimizer: its name.
      best: its hyperparameters with the best median.
      at_edge: whether one of these is the first or the last of several, so that a wider
        grid may have a better one.
      median: over seeds, of the goal's metric after the last step.
      lowest: of the seeds.
      highest: of the seeds.
      metrics: medians over seeds of all metrics after the last step.
      steps_to_target: median over seeds of the steps until the target was reached, to
        the next evaluation; infinite where half of them never did.
      diverged: trials of the whole grid that ended without a finite value.
      trials: their number.
      state_bytes_per_parameter: size of the optimizer's state.
      microseconds_per_step: time of one trial's step, of many that ran at once.
    """

    optimizer: str
    best: dict[str, float]
    at_edge: bool
    median: float
    lowest: float
    highest: float
    metrics: dict[str, float]
    steps_to_target: float
    diverged: int
    trials: int
    state_bytes_per_parameter: float
    microseconds_per_step: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Sweeps of several optimizers over the same values, seeds and steps of a task.

    Each is judged at the hyperparameters with its best median, which are chosen by the
    same trials: with few seeds all look a little better than they are.

    Attributes:
      sweeps: names of optimizers to their sweeps.

    Raises:
      ValueError: there are none, or they are not of one task, with one goal, one number
        of rows, the same seeds and the same evaluations.

    Examples:
      >>> import optax
      >>> from optax_extras.tuning import Comparison, digits, sweep
      >>> task, grid = digits(), {"learning_rate": [0.001, 0.01, 0.1, 1.0]}
      >>> comparison = Comparison(
      ...     {
      ...         name: sweep(task, make, grid, steps=50, seeds=3)
      ...         for name, make in {"sgd": optax.sgd, "adam": optax.adam}.items()
      ...     }
      ... )
      >>> sgd, adam = comparison.summaries()
      >>> sgd.best["learning_rate"] > adam.best["learning_rate"]
      True
    """

    sweeps: Mapping[str, SweepResult]

    def __post_init__(self) -> None:
        """Checks that the sweeps can be compared."""
        if not self.sweeps:
            raise ValueError("`sweeps` must not be empty, got {}")
        kinds: dict[str, Any] = {
            "task": lambda s: s.task,
            "goal": lambda s: s.goal,
            "number of rows": lambda s: len(s.losses),
            "seeds": lambda s: s.seeds.tolist(),
            "steps": lambda s: s.steps.tolist(),
        }
        (first, one), *others = self.sweeps.items()
        for kind, of in kinds.items():
            for name, other in others:
                if of(other) != of(one):
                    raise ValueError(
                        f"`sweeps` must have one {kind}, got {of(one)} for {first!r}"
                        f" and {of(other)} for {name!r}"
                    )

    @property
    def goal(self) -> Goal:
        """The metric that they are compared by."""
        return next(iter(self.sweeps.values())).goal

    @property
    def target(self) -> float:
        """95 % of the way from the first median of the goal's metric to the best last.

        The first is that of the initial parameters, or, for a mean of losses, of the
        first mini-batches. NaN where nothing finite is reached.
        """
        sign = 1 if self.goal.mode == "min" else -1
        curves = [sign * self.best_curves(name) for name in self.sweeps]
        ends = np.array([curve[:, [0, -1]] for curve in curves])
        medians = np.median(np.where(np.isfinite(ends), ends, np.inf), axis=1)
        first, last = np.median(medians[:, 0]), np.min(medians[:, 1])
        if not np.isfinite([first, last]).all():
            return np.nan
        return float(sign * (first + TARGET * (last - first)))

    def best_curves(self, optimizer: str) -> np.ndarray[Any, Any]:
        """The goal's metric at each evaluation of an optimizer's best row, (S, E)."""
        sweep = self.sweeps[optimizer]
        curves: np.ndarray[Any, Any] = sweep.curves(self.goal.metric)[sweep.best_row()]
        return curves

    def summaries(self) -> list[Summary]:
        """What each optimizer reached, in their order."""
        return [self._summary(*item) for item in self.sweeps.items()]

    def _summary(self, name: str, sweep: SweepResult) -> Summary:
        row, curves = sweep.best_row(), self.best_curves(name)
        sign = 1 if self.goal.mode == "min" else -1
        reached = sign * curves <= sign * self.target
        steps = sweep.steps[-curves.shape[1] :].astype(float)
        first = np.where(reached.any(axis=1), steps[reached.argmax(axis=1)], np.inf)
        last = np.where(sweep.diverged()[row], sign * np.inf, curves[:, -1])
        best = sweep.best()
        return Summary(
            optimizer=name,
            best=best,
            at_edge=any(
                best[k] in (v.min(), v.max()) and v.min() < v.max()
                for k, v in sweep.hyperparameters.items()
            ),
            median=float(np.median(last)),
            lowest=float(np.min(last)),
            highest=float(np.max(last)),
            metrics={
                k: float(np.median(v[row, :, -1])) for k, v in sweep.metrics.items()
            },
            steps_to_target=float(np.median(first)),
            diverged=int(sweep.diverged().sum()),
            trials=sweep.diverged().size,
            state_bytes_per_parameter=sweep.state_bytes_per_parameter,
            microseconds_per_step=1e6 * sweep.seconds_per_step,
        )

    def plot(self, title: str | None = None) -> "Figure":
        """Sensitivity to the learning rate, and the curves at the best.

        On the left the median of the goal's metric after the last step, with its range
        over seeds, and crosses where half of the seeds or more diverged; on the right
        the median and range at each optimizer's best.

        Args:
          title: by default the task, the number of steps and the seeds.

        Raises:
          ValueError: the sweeps are not over ``learning_rate`` alone.
          ImportError: matplotlib is not installed.
        """
        from optax_extras.tuning import _plots

        for name, sweep in self.sweeps.items():
            if list(sweep.hyperparameters) != ["learning_rate"]:
                raise ValueError(
                    "a plot needs sweeps over `learning_rate` alone, got"
                    f" {', '.join(sweep.hyperparameters)} for {name!r}"
                )
        return _plots.of_comparison(self, title)
