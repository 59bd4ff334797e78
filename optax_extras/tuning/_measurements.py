"""Arrays that a sweep measured, and statistics of them."""

import dataclasses
from typing import Any

import numpy as np

from optax_extras.tasks import Goal, Mode

# Rise of the loss, in multiples of what it starts at or falls by, of a diverged trial.
_DIVERGENCE = 10.0


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Fields of `SweepResult`, which describes them, and their statistics."""

    task: str
    goal: Goal
    hyperparameters: dict[str, np.ndarray[Any, Any]]
    seeds: np.ndarray[Any, Any]
    steps: np.ndarray[Any, Any]
    metrics: dict[str, np.ndarray[Any, Any]]
    losses: np.ndarray[Any, Any]
    initial_losses: np.ndarray[Any, Any]
    compile_seconds: float
    run_seconds: float
    state_bytes_per_parameter: float
    sent_bytes: np.ndarray[Any, Any]
    received_bytes: np.ndarray[Any, Any]
    planned: int
    program: str = ""
    recorded: dict[str, np.ndarray[Any, Any]] = dataclasses.field(default_factory=dict)

    @property
    def seconds_per_step(self) -> float:
        """Run time divided by the updates of all trials; evaluations are included."""
        return self.run_seconds / (self.losses[..., 0].size * float(self.steps[-1]))

    @property
    def communicates(self) -> bool:
        """Whether workers sent anything to each other."""
        return bool(self.sent_bytes[-1] > 0)

    def curves(self, metric: str) -> np.ndarray[Any, Any]:
        """Values of a metric at each evaluation, (R, S, E).

        Args:
          metric: one of `metrics` or `recorded`; or ``"loss"``, the mean loss since the
            last evaluation, or ``"mean_loss"``, that since the first step. These two
            start at the second evaluation: (R, S, E − 1).

        Raises:
          ValueError: there is no such metric.
        """
        lengths = np.diff(self.steps).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.cumsum(self.losses * lengths, axis=-1)
        known: dict[str, np.ndarray[Any, Any]] = {
            "loss": self.losses,
            "mean_loss": sums / np.cumsum(lengths),
            **self.metrics,
            **self.recorded,
        }
        if metric not in known:
            raise ValueError(
                f"`metric` must be one of {', '.join(known)}, got {metric!r}"
            )
        return known[metric]

    def final(self, metric: str) -> np.ndarray[Any, Any]:
        """Last value of a metric that `curves` knows, (R, S).

        Raises:
          ValueError: there is no such metric.
        """
        values: np.ndarray[Any, Any] = self.curves(metric)[..., -1]
        return values

    def initial(self, metric: str) -> np.ndarray[Any, Any]:
        """Value of a metric before the first step, (R, S).

        That of ``"loss"`` and ``"mean_loss"`` is the loss of the first mini-batch, and
        that of a recorded scalar NaN or −1.

        Raises:
          ValueError: there is no such metric.
        """
        measured = {**self.metrics, **self.recorded}
        if metric in measured:
            values: np.ndarray[Any, Any] = measured[metric][..., 0]
            return values
        self.curves(metric)  # checks the name
        return self.initial_losses

    def course(self, metric: str) -> np.ndarray[Any, Any]:
        """Values of a metric before the first step and at each evaluation, (R, S, E).

        Raises:
          ValueError: there is no such metric.
        """
        later = self.curves(metric)[..., 1 - len(self.steps) :]
        return np.concatenate([self.initial(metric)[..., np.newaxis], later], axis=-1)

    def best(
        self, metric: str | None = None, mode: Mode | None = None
    ) -> dict[str, float]:
        """Hyperparameters with the best final metric, by the median over seeds.

        A seed that diverged counts as worse than all others.

        Args:
          metric: one that `curves` knows; by default that of the task's goal.
          mode: ``"min"`` if low values are better, ``"max"`` if high values are. It may
            be omitted for the goal's metrics and for losses that the task minimises,
            ``"loss"`` and ``"mean_loss"``.

        Raises:
          ValueError: there is no such metric or mode, or the mode is needed.
        """
        row = self.best_row(metric, mode)
        return {k: v[row].item() for k, v in self.hyperparameters.items()}

    def best_row(self, metric: str | None = None, mode: Mode | None = None) -> int:
        """Row index of `best`."""
        return int(np.argmin(self.scores(metric, mode)))

    def best_rows(self, *names: str) -> np.ndarray[Any, Any]:
        """Row indices of the best row with each value of some hyperparameters.

        They are in ascending order of the values, of the first hyperparameter first,
        and the best by the task's goal.
        """
        columns = [self.hyperparameters[name] for name in names]
        order = np.lexsort((self.scores(), *reversed(columns)))
        keys = np.stack([column[order] for column in columns])
        new = np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0))
        rows: np.ndarray[Any, Any] = order[new]
        return rows

    def scores(
        self, metric: str | None = None, mode: Mode | None = None
    ) -> np.ndarray[Any, Any]:
        """Medians over seeds of a final metric, of which the lowest is the best, (R,).

        They have the opposite sign if high values of the metric are better, and are
        infinite if half of the seeds or more diverged. `best` has the arguments.
        """
        metric = self.goal.metric if metric is None else metric
        values = self.final(metric)
        mode = self.mode_of(metric) if mode is None else mode
        if mode not in ("min", "max"):
            raise ValueError(
                f"`mode` must be 'min' or 'max' for metric {metric!r}, got {mode!r}"
            )
        values = values.astype(np.float64) * (1 if mode == "min" else -1)
        worst = np.where(np.isfinite(values) & ~self.diverged(), values, np.inf)
        with np.errstate(over="ignore"):  # the mean of two values in the middle
            scores: np.ndarray[Any, Any] = np.median(worst, axis=1)
        return scores

    def mode_of(self, metric: str) -> Mode | None:
        """Whether low or high values of a metric are better, if that is known."""
        known: dict[str, Mode] = {"loss": "min", "mean_loss": "min"}
        known[self.goal.metric] = known[self.goal.reported] = self.goal.mode
        return known.get(metric)

    def diverged(self) -> np.ndarray[Any, Any]:
        """Whether each trial diverged, (R, S).

        A trial diverged if its last loss or a last metric is not finite, or if the last
        loss is far above the first: by more than ten times the size of the first loss
        or the fall of the best trial, whichever is larger (medians over all trials).
        Recorded scalars do not count.
        """
        last = self.losses[..., -1]
        ends = [last, *(m[..., -1] for m in self.metrics.values())]
        finite = np.all(np.isfinite(ends), axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            first = np.median(self.initial_losses)
            fall = first - np.min(last, where=finite, initial=first)
            limit = first + _DIVERGENCE * np.maximum(abs(first), fall)
            gone: np.ndarray[Any, Any] = ~finite | (last > limit)
        return gone
