"""What a sweep gave, as arrays with named axes."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

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
      hyperparameters: names to the values in each row, shape (R,).
      seeds: shape (S,).
      steps: updates done at each evaluation; int, shape (E,).
      metrics: the task's metrics, each of shape (R, S, E).
      losses: the mean of the mini-batches' losses between evaluations, (R, S, E − 1).
      seconds: time the sweep took, with compilation; of one that was resumed, since
        then.
      planned: the rows there were to be, more than R where it was interrupted.
    """

    task: str
    hyperparameters: dict[str, np.ndarray[Any, Any]]
    seeds: np.ndarray[Any, Any]
    steps: np.ndarray[Any, Any]
    metrics: dict[str, np.ndarray[Any, Any]]
    losses: np.ndarray[Any, Any]
    seconds: float
    planned: int

    def final(self, metric: str) -> np.ndarray[Any, Any]:
        """A metric after the last step, or ``"loss"``, shape (R, S).

        Raises:
          ValueError: there is no such metric.
        """
        curves = {"loss": self.losses, **self.metrics}
        if metric not in curves:
            raise ValueError(
                f"`metric` must be one of {', '.join(curves)}, got {metric!r}"
            )
        values: np.ndarray[Any, Any] = curves[metric][..., -1]
        return values

    def best(
        self, metric: str = "loss", mode: Literal["min", "max"] = "min"
    ) -> dict[str, float]:
        """The row whose median over seeds of a final metric is best.

        A seed that diverged counts as the worst there can be.

        Raises:
          ValueError: there is no such metric or mode.
        """
        return {
            k: v[self.best_row(metric, mode)].item()
            for k, v in self.hyperparameters.items()
        }

    def best_row(
        self, metric: str = "loss", mode: Literal["min", "max"] = "min"
    ) -> int:
        """The index of that row."""
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}")
        values = self.final(metric) * (1 if mode == "min" else -1)
        finite = np.where(np.isfinite(values), values, np.inf)
        return int(np.argmin(np.median(finite, axis=1)))

    def diverged(self) -> np.ndarray[Any, Any]:
        """Whether a trial's loss or metrics ended without a finite value; (R, S)."""
        ends = [self.losses[..., -1], *(m[..., -1] for m in self.metrics.values())]
        finite: np.ndarray[Any, Any] = np.all(np.isfinite(ends), axis=0)
        return ~finite

    def to_dataframe(self) -> Any:
        """A `pandas.DataFrame` with a row for every trial and evaluation.

        Its columns are the hyperparameters, ``seed``, ``step``, ``loss``, which the
        initial parameters do not have, and the metrics.

        Raises:
          ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "`to_dataframe` needs pandas: pip install pandas"
            ) from error
        rows, seeds, steps = np.indices(next(iter(self.metrics.values())).shape)
        first = np.full((*self.losses.shape[:2], 1), np.nan)
        losses = np.concatenate([first, self.losses], axis=-1)
        columns = {k: v[rows.ravel()] for k, v in self.hyperparameters.items()}
        columns |= {
            "seed": self.seeds[seeds.ravel()],
            "step": self.steps[steps.ravel()],
            "loss": losses.ravel(),
        }
        columns |= {name: values.ravel() for name, values in self.metrics.items()}
        return pd.DataFrame(columns)

    def plot(self, metric: str = "loss", hyperparameter: str | None = None) -> "Figure":
        """Sensitivity to a hyperparameter, and the losses of the best trials.

        On the left the median and the range over seeds of a final metric, with the
        values at which seeds diverged in red; on the right the losses of the row with
        the lowest.

        Args:
          metric: one of the metrics, or ``"loss"``.
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
        return _plots.of_sweep(self, metric, hyperparameter)

    def save(self, path: str | Path) -> None:
        """Writes an ``.npz`` file that `load` reads; nothing is pickled."""
        arrays = {f"hyperparameter/{k}": v for k, v in self.hyperparameters.items()}
        arrays |= {f"metric/{k}": v for k, v in self.metrics.items()}
        head = {
            "format": _FORMAT,
            "task": self.task,
            "seconds": self.seconds,
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
        if head.get("format") != _FORMAT:
            raise ValueError(f"{path} is not a sweep that `save` wrote")
        groups: dict[str, dict[str, Any]] = {"hyperparameter": {}, "metric": {}}
        for name, array in arrays.items():
            kind, slash, key = name.partition("/")
            if slash:
                groups[kind][key] = array
        return cls(
            task=head["task"],
            hyperparameters=groups["hyperparameter"],
            seeds=arrays["seeds"],
            steps=arrays["steps"],
            metrics=groups["metric"],
            losses=arrays["losses"],
            seconds=head["seconds"],
            planned=head["planned"],
        )
