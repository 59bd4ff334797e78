"""`SweepResult`: what a sweep measured, as arrays."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optax_extras.tasks import Goal, Mode
from optax_extras.tuning._drawing import draw_band, new_figure
from optax_extras.tuning._files import read, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMAT = 2

# Rise of the loss, in multiples of what it starts at or falls by, of a diverged trial.
_DIVERGENCE = 10.0


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """Measurements of a sweep with R rows of hyperparameters, S seeds, E evaluations.

    The first evaluation is that of the initial parameters.

    Attributes:
      task: name of the task.
      goal: the task's goal: a metric, and whether it should be low or high.
      hyperparameters: values in each row by name, each of shape (R,).
      seeds: shape (S,).
      steps: updates done at each evaluation; int, shape (E,).
      metrics: the task's metrics by name, each of shape (R, S, E).
      losses: mean loss of the mini-batches between evaluations, (R, S, E − 1).
      initial_losses: loss of the first mini-batch at the initial parameters, (R, S).
      compile_seconds: time to trace and compile the finished chunks.
      run_seconds: time to run and evaluate the finished chunks.
      state_bytes_per_parameter: size of the optimizer's state.
      planned: rows of the whole sweep, more than R if it was interrupted.
      program: digest of what a trial computes, by which `sweep` knows the file to
        resume; empty without one.
    """

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
    planned: int
    program: str = ""

    @property
    def seconds_per_step(self) -> float:
        """Run time divided by the updates of all trials; evaluations are included."""
        return self.run_seconds / (self.losses[..., 0].size * float(self.steps[-1]))

    def curves(self, metric: str) -> np.ndarray[Any, Any]:
        """Values of a metric at each evaluation, (R, S, E).

        Args:
          metric: one of `metrics`; or ``"loss"``, the mean loss since the last
            evaluation, or ``"mean_loss"``, that since the first step. These two start
            at the second evaluation: (R, S, E − 1).

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
        """Last value of a metric that `curves` knows, (R, S).

        Raises:
          ValueError: there is no such metric.
        """
        values: np.ndarray[Any, Any] = self.curves(metric)[..., -1]
        return values

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
        metric = self.goal.metric if metric is None else metric
        values = self.final(metric)
        if mode is None:
            known: dict[str, Mode] = {"loss": "min", "mean_loss": "min"}
            known[self.goal.metric] = known[self.goal.reported] = self.goal.mode
            mode = known.get(metric)
        if mode not in ("min", "max"):
            raise ValueError(
                f"`mode` must be 'min' or 'max' for metric {metric!r}, got {mode!r}"
            )
        values = values * (1 if mode == "min" else -1)
        worst = np.where(np.isfinite(values) & ~self.diverged(), values, np.inf)
        return int(np.argmin(np.median(worst, axis=1)))

    def diverged(self) -> np.ndarray[Any, Any]:
        """Whether each trial diverged, (R, S).

        A trial diverged if its last loss or a last metric is not finite, or if the last
        loss is far above the first: by more than ten times the size of the first loss
        or the fall of the best trial, whichever is larger (medians over all trials).
        """
        last = self.losses[..., -1]
        ends = [last, *(m[..., -1] for m in self.metrics.values())]
        finite = np.all(np.isfinite(ends), axis=0)
        with np.errstate(invalid="ignore"):
            first = np.median(self.initial_losses)
            fall = first - np.min(last, where=finite, initial=first)
            limit = first + _DIVERGENCE * np.maximum(abs(first), fall)
            gone: np.ndarray[Any, Any] = ~finite | (last > limit)
        return gone

    def columns(self) -> dict[str, np.ndarray[Any, Any]]:
        """Columns of a table with a row for every trial and evaluation.

        They are the hyperparameters, ``seed``, ``step``, ``loss`` (NaN at the first
        evaluation) and the metrics.
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
        """`columns` as a `pandas.DataFrame`.

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
        """Draws the sensitivity to a hyperparameter, and the best trials.

        Left: median and range over seeds of a final metric, with red lines where seeds
        diverged. Right: losses of the row that is best by the task's goal.

        Args:
          metric: one that `curves` knows; by default that of the task's goal.
          hyperparameter: abscissa; by default ``learning_rate``, else the first.

        Raises:
          ValueError: there is no such metric or hyperparameter.
          ImportError: matplotlib is not installed.
        """
        names = list(self.hyperparameters)
        if hyperparameter is None:
            hyperparameter = "learning_rate" if "learning_rate" in names else names[0]
        if hyperparameter not in names:
            raise ValueError(
                f"`hyperparameter` must be one of {', '.join(names)}, got"
                f" {hyperparameter!r}"
            )
        figure = new_figure(10, 4)
        left, right = figure.subplots(1, 2)
        self._draw_sensitivity(left, metric or self.goal.metric, hyperparameter)
        self._draw_best(right)
        figure.suptitle(f"{self.task}: {len(self.seeds)} seeds", fontsize="medium")
        return figure

    def _draw_sensitivity(self, axes: Any, metric: str, hyperparameter: str) -> None:
        x = self.hyperparameters[hyperparameter]
        values = np.where(self.diverged(), np.nan, self.final(metric))
        if len(np.unique(x)) == len(x):  # one row for each value
            order = np.argsort(x, kind="stable")
            line = {"marker": "o", "markersize": 3, "label": "median", "color": "C0"}
            draw_band(axes, x[order], values[order], "all seeds", **line)
        else:
            cloud = np.repeat(x, values.shape[1])
            axes.plot(cloud, values.ravel(), "o", alpha=0.4, label="each trial")
        gone = self.diverged().mean(axis=1)
        for value, share in zip(x, gone, strict=True):
            if share:
                shade = 0.15 + 0.35 * share
                axes.axvline(value, color="tab:red", alpha=shade, zorder=0)
        if gone.any():
            axes.plot([], [], color="tab:red", alpha=0.5, label="seeds diverged")
        if (x > 0).all() and x.max() > 10 * x.min():
            axes.set_xscale("log")
        if np.nanmin(values, initial=np.inf) > 0:
            axes.set_yscale("log")
        axes.set_xlabel(hyperparameter)
        axes.set_ylabel(f"{metric} after {self.steps[-1]} steps")
        axes.legend(fontsize="small")

    def _draw_best(self, axes: Any) -> None:
        losses = self.losses[self.best_row()]
        losses = np.where(np.isfinite(losses), losses, np.nan)
        line = {"label": "median", "color": "C0"}
        draw_band(axes, self.steps[1:], losses.T, "all seeds", **line)
        if np.nanmin(losses, initial=np.inf) > 0:
            axes.set_yscale("log")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
        best = ", ".join(f"{name} = {value:.3g}" for name, value in self.best().items())
        axes.set_title(f"best {self.goal.metric}: {best}", fontsize="small")
        axes.set_xlabel("step")
        axes.set_ylabel("mean loss of mini-batches")

    def save(self, path: str | Path) -> None:
        """Writes an ``.npz`` file without pickles, which `load` reads."""
        head = {
            "format": _FORMAT,
            "task": self.task,
            "goal": dataclasses.astuple(self.goal),
            "compile_seconds": self.compile_seconds,
            "run_seconds": self.run_seconds,
            "state_bytes_per_parameter": self.state_bytes_per_parameter,
            "planned": self.planned,
            "program": self.program,
        }
        write(
            path,
            {
                "head": np.array(json.dumps(head)),
                "seeds": self.seeds,
                "steps": self.steps,
                "losses": self.losses,
                "initial_losses": self.initial_losses,
                **{f"hyperparameter/{k}": v for k, v in self.hyperparameters.items()},
                **{f"metric/{k}": v for k, v in self.metrics.items()},
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> "SweepResult":
        """Reads a file that `save` wrote.

        Raises:
          OSError: it cannot be opened.
          ValueError: it is another file, or damaged.
        """
        arrays = read(path)
        head = json.loads(str(arrays.pop("head", "{}")))
        if head.pop("format", None) != _FORMAT:
            raise ValueError(f"{path} is not a sweep that `save` of this version wrote")
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
            initial_losses=arrays["initial_losses"],
            **head,
        )
