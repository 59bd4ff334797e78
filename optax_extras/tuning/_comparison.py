"""`Comparison`: sweeps of several optimizers with the same task, seeds and steps."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optax_extras.tasks import Goal
from optax_extras.tuning._comparison_picture import draw_comparison
from optax_extras.tuning._comparison_view import view_of
from optax_extras.tuning._result import SweepResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Share of the way from the first value to the best last one at which the target lies.
TARGET = 0.95


class Summary(NamedTuple):
    """Results of an optimizer with its best hyperparameters.

    Attributes:
      optimizer: name of the optimizer.
      best: hyperparameters with the best median of the metric that chooses.
      at_edge: whether one of these is at an end of its range, so that a wider grid may
        hold better ones.
      median: median over seeds of the reported metric after the last step; a seed that
        diverged counts as worse than all others.
      lowest: lowest value over seeds.
      highest: highest value over seeds.
      metrics: medians over seeds of all metrics after the last step.
      steps_to_target: median over seeds of the first evaluated step from which on the
        reported metric stays at or beyond the target to the end; infinite if half of
        the seeds diverge or end before it.
      diverged: number of trials of the whole grid that diverged.
      trials: number of trials of the whole grid.
      state_bytes_per_parameter: size of the optimizer's state, that of all workers.
      sent_bytes: bytes that a worker sent to others in all steps.
      received_bytes: bytes that it received.
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
    sent_bytes: int
    received_bytes: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of several optimizers by their sweeps of one task.

    Each optimizer is judged at the hyperparameters with the best median of
    ``goal.metric``, by its values of ``goal.reported``. If both are one metric, the
    trials that choose also judge, which flatters all with few seeds.

    The grids may differ in size and in hyperparameters; an optimizer with more rows has
    then more to choose from.

    Attributes:
      sweeps: sweeps by the names of their optimizers.

    Raises:
      TypeError: ``sweeps`` does not map names to results of `sweep`.
      ValueError: there are no sweeps, or they differ in task, goal, seeds or evaluated
        steps.

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
        wanted = "`sweeps` must map names of optimizers to results of `sweep`, got"
        if not isinstance(self.sweeps, Mapping):
            raise TypeError(f"{wanted} a {type(self.sweeps).__name__}")
        for name, result in self.sweeps.items():
            if not (isinstance(name, str) and isinstance(result, SweepResult)):
                kind = type(result).__name__
                raise TypeError(f"{wanted} a {kind} for the name {name!r}")
        if not self.sweeps:
            raise ValueError("`sweeps` must not be empty, got {}")
        kinds: dict[str, Any] = {
            "task": lambda s: s.task,
            "goal": lambda s: s.goal,
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
        """Goal of the task: metrics that choose hyperparameters and are reported."""
        return next(iter(self.sweeps.values())).goal

    @property
    def target(self) -> float:
        """Value at 95 % of the way from the initial to the best final median.

        The medians are those of the reported metric over seeds. The initial one is that
        of the initial parameters, or of the first mini-batch if the metric is a mean of
        losses. NaN if no optimizer ends with a median better than that.
        """
        sign = self._sign
        firsts = [
            np.median(sweep.initial(self.goal.reported)[sweep.best_row()])
            for sweep in self.sweeps.values()
        ]
        first = sign * float(np.median(firsts))
        last = min(float(np.median(sign * self._ends(name))) for name in self.sweeps)
        if not (np.isfinite([first, last]).all() and last < first):
            return np.nan
        return sign * (first + TARGET * (last - first))

    def best_curves(self, optimizer: str) -> np.ndarray[Any, Any]:
        """Reported metric at each evaluation of an optimizer's best row, (S, E)."""
        sweep = self.sweeps[optimizer]
        curves = sweep.curves(self.goal.reported)
        best: np.ndarray[Any, Any] = curves[sweep.best_row()]
        return best

    def summaries(self) -> list[Summary]:
        """Summary of each optimizer, in the order of `sweeps`."""
        return [self._summary(*item) for item in self.sweeps.items()]

    def _summary(self, name: str, sweep: SweepResult) -> Summary:
        row, curves = sweep.best_row(), self.best_curves(name)
        reached = self._sign * curves <= self._sign * self.target
        reached &= ~sweep.diverged()[row][:, np.newaxis]
        stays = np.logical_and.accumulate(reached[:, ::-1], axis=1)[:, ::-1]
        steps = sweep.steps[-curves.shape[1] :].astype(float)
        first = np.where(stays[:, -1], steps[stays.argmax(axis=1)], np.inf)
        last = self._ends(name)
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
            metrics={k: _median(v[row, :, -1]) for k, v in sweep.metrics.items()},
            steps_to_target=float(np.median(first)),
            diverged=int(sweep.diverged().sum()),
            trials=sweep.diverged().size,
            state_bytes_per_parameter=sweep.state_bytes_per_parameter,
            sent_bytes=int(sweep.sent_bytes[-1]),
            received_bytes=int(sweep.received_bytes[-1]),
        )

    @property
    def _sign(self) -> int:
        return 1 if self.goal.mode == "min" else -1

    def _ends(self, optimizer: str) -> np.ndarray[Any, Any]:
        """Last reported values of the best row, infinitely bad if it diverged, (S,)."""
        sweep, ends = self.sweeps[optimizer], self.best_curves(optimizer)[:, -1]
        worst, gone = self._sign * np.inf, sweep.diverged()[sweep.best_row()]
        last: np.ndarray[Any, Any] = np.where(gone, worst, ends.astype(np.float64))
        return last

    def plot(
        self, title: str | None = None, hyperparameter: str | None = None
    ) -> "Figure":
        """Draws the choice of a hyperparameter, and the training that came of it.

        Left: the metric that chooses after the last step, over the hyperparameter. If
        a sweep has several, each value is drawn with the best values of the others; one
        that does not have it is a level line. Right: the reported metric over the
        steps, with each optimizer's best hyperparameters; or over what a worker sent,
        if workers trained together in all sweeps.

        Lines are medians over seeds, and bands all seeds. The axes end a little beyond
        the metric before training and its best value; marks in a grey margin show what
        is outside. More than six optimizers are drawn in several rows of panels, where
        the best one is repeated in grey.

        Args:
          title: title of the picture; by default the task, steps and seeds.
          hyperparameter: abscissa on the left; by default ``learning_rate`` if a sweep
            has it, else the first of the first sweep.

        Raises:
          ValueError: no sweep has the hyperparameter.
          ImportError: matplotlib is not installed.
        """
        ends = [np.median(self._sign * self._ends(name)) for name in self.sweeps]
        best = int(np.argmin(ends))
        view = view_of(self.sweeps, hyperparameter, best, self.target, title)
        return draw_comparison(view)


def _median(values: np.ndarray[Any, Any]) -> float:
    """Median of numbers that need not be finite."""
    with np.errstate(invalid="ignore"):
        return float(np.median(values.astype(np.float64)))
