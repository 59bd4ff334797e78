"""What a sweep gave, as arrays with named axes."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from optax_extras.tuning._task import Goal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """What the trials of a sweep gave.

    With R rows of hyperparameters, S seeds and E evaluations, of which the first is
    that of the initial parameters:

    Attributes:
      task: the task's name.
      goal: the task's metric to compare by, and whether it is to be low or high.
      hyperparameters: names to the values in each row, shape (R,).
      seeds: shape (S,).
      steps: updates done at each evaluation; int, shape (E,).
      metrics: the task's metrics, each of shape (R, S, E).
      losses: the mean of the mini-batches' losses between evaluations, (R, S, E − 1).
      compile_seconds: time to trace and compile the finished chunks.
      run_seconds: time to run and evaluate them.
      state_bytes_per_parameter: size of the optimizer's state.
      planned: the rows there were to be, more than R where it was interrupted.
    """

    task: str
    goal: Goal
    hyperparameters: dict[str, np.ndarray[Any, Any]]
    seeds: np.ndarray[Any, Any]
    steps: np.ndarray[Any, Any]
    metrics: dict[str, np.ndarray[Any, Any]]
    losses: np.ndarray[Any, Any]
    compile_seconds: float
    run_seconds: float
    state_bytes_per_parameter: float
    planned: int

    @property
    def seconds_per_step(self) -> float:
        """Time of one trial's step, of many that ran at once, with its evaluation."""
        return self.run_seconds / (self.losses[..., 0].size * float(self.steps[-1]))

    def curves(self, metric: str) -> np.ndarray[Any, Any]:
        """A metric at each evaluation, (R, S, E).

        Of ``"loss"``, the mean since the last evaluation, and ``"mean_loss"``, the mean
        since the first step, the initial parameters have none: (R, S, E − 1).

        Raises:
          ValueError: there is no such metric.
        """
        lengths = np.diff(self.steps).astype(np.float64)
        sums = np.cumsum(self.losses * lengths, axis=-1)
        known: dict[str, np.ndarray[Any, Any]] = {
            "loss": self.losses,
            "mean_loss": sums / np.cumsum(lengths),
            **self.metrics,
        }
        if metric not in known:
            raise ValueError(
                f"`metric` must be one of {', '.join(known)}, got {metric!r}"
            )
        return known[metric]

    def final(self, metric: str) -> np.ndarray[Any, Any]:
        """The last of the `curves`, (R, S).

        Raises:
          ValueError: there is no such metric.
        """
        values: np.ndarray[Any, Any] = self.curves(metric)[..., -1]
        return values

    def best(
        self, metric: str | None = None, mode: Literal["min", "max"] = "min"
    ) -> dict[str, float]:
        """The hyperparameters whose median over seeds of a final metric is best.

        A seed that diverged counts as the worst there can be.

        Args:
          metric: one that `curves` knows; by default the task's goal, with its own
            mode.
          mode: whether the metric is to be low or high.

        Raises:
          ValueError: there is no such metric or mode.
        """
        row = self.best_row(metric, mode)
        return {k: v[row].item() for k, v in self.hyperparameters.items()}

    def best_row(
        self, metric: str | None = None, mode: Literal["min", "max"] = "min"
    ) -> int:
        """The index of these."""
        if metric is None:
            metric, mode = self.goal
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}")
        values = self.final(metric) * (1 if mode == "min" else -1)
        worst = np.where(np.isfinite(values) & ~self.diverged(), values, np.inf)
        return int(np.argmin(np.median(worst, axis=1)))

    def diverged(self) -> np.ndarray[Any, Any]:
        """Whether a trial's loss or metrics ended without a finite value; (R, S)."""
        ends = [self.losses[..., -1], *(m[..., -1] for m in self.metrics.values())]
        finite: np.ndarray[Any, Any] = np.all(np.isfinite(ends), axis=0)
        return ~finite

    def columns(self) -> dict[str, np.ndarray[Any, Any]]:
        """A table with a row for every trial and evaluation, column by column.

        The columns are the hyperparameters, ``seed``, ``step``, ``loss``, which the
        initial parameters do not have, and the metrics.
        """
        shape = (*self.losses.shape[:2], len(self.steps))
        rows, seeds, steps = (index.ravel() for index in np.indices(shape))
        first = np.full((*shape[:2], 1), np.nan)
        return {
            **{name: values[rows] for name, values in self.hyperparameters.items()},
            "seed": self.seeds[seeds],
            "step": self.steps[steps],
            "loss": np.concatenate([first, self.losses], axis=-1).ravel(),
            **{name: values.ravel() for name, values in self.metrics.items()},
        }

    def to_dataframe(self) -> Any:
        """The `columns` as a `pandas.DataFrame`.

        Raises:
          ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "`to_dataframe` needs pandas: pip install pandas"
            ) from error
        return pd.DataFrame(self.columns())

    def plot(
        self, metric: str | None = None, hyperparameter: str | None = None
    ) -> "Figure":
        """Sensitivity to a hyperparameter, and the losses of the best trials.

        On the left the median and the range over seeds of a final metric, with the
        values at which seeds diverged in red; on the right the losses of the row that
        is best by the task's goal.

        Args:
          metric: one that `curves` knows; by default the task's goal.
          hyperparameter: by default ``learning_rate`` or the first.

        Raises:
          ValueError: there is no such metric or hyperparameter.
          ImportError: matplotlib is not installed.
        """
        from optax_extras.tuning import _plots

        names = list(self.hyperparameters)
        if hyperparameter is None:
            hyperparameter = "learning_rate" if "learning_rate" in names else names[0]
        if hyperparameter not in names:
            raise ValueError(
                f"`hyperparameter` must be one of {', '.join(names)}, got"
                f" {hyperparameter!r}"
            )
        return _plots.of_sweep(self, metric or self.goal[0], hyperparameter)

    def save(self, path: str | Path) -> None:
        """Writes an ``.npz`` file that `load` reads; nothing is pickled."""
        arrays = {f"hyperparameter/{k}": v for k, v in self.hyperparameters.items()}
        arrays |= {f"metric/{k}": v for k, v in self.metrics.items()}
        head = {
            "format": _FORMAT,
            "task": self.task,
            "goal": self.goal,
            "compile_seconds": self.compile_seconds,
            "run_seconds": self.run_seconds,
            "state_bytes_per_parameter": self.state_bytes_per_parameter,
            "planned": self.planned,
        }
        # Replacing a file whole keeps the last one when interrupted here.
        unfinished = Path(f"{path}.unfinished")
        with unfinished.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                head=np.array(json.dumps(head)),
                seeds=self.seeds,
                steps=self.steps,
                losses=self.losses,
                **arrays,
            )
        unfinished.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "SweepResult":
        """Reads what `save` wrote.

        Raises:
          ValueError: the file is not one of these.
        """
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        head = json.loads(str(arrays.pop("head", "{}")))
        if head.pop("format", None) != _FORMAT:
            raise ValueError(f"{path} is not a sweep that `save` wrote")
        groups: dict[str, dict[str, Any]] = {"hyperparameter": {}, "metric": {}}
        for name, array in arrays.items():
            kind, slash, key = name.partition("/")
            if slash:
                groups[kind][key] = array
        return cls(
            goal=Goal(*head.pop("goal")),
            hyperparameters=groups["hyperparameter"],
            seeds=arrays["seeds"],
            steps=arrays["steps"],
            metrics=groups["metric"],
            losses=arrays["losses"],
            **head,
        )
