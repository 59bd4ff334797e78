"""`SweepResult`: what a sweep measured, as arrays."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optax_extras.tasks import Goal
from optax_extras.tuning._files import read, write
from optax_extras.tuning._measurements import Measurements
from optax_extras.tuning._sweep_picture import draw_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMAT = 4


@dataclasses.dataclass(frozen=True)
class SweepResult(Measurements):
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
      state_bytes_per_parameter: size of the optimizer's state, that of all workers.
      sent_bytes: bytes that a worker had sent at each evaluation; int, shape (E,), of
        zeros without ``worker_mesh``.
      received_bytes: bytes that it had received; the same.
      planned: rows of the whole sweep, more than R if it was interrupted.
      program: digest of what a trial computes, by which `sweep` knows the file to
        resume; empty without one.
      recorded: what `optax_extras.record` kept in the optimizer's state, by name, each
        of shape (R, S, E): the last measurement at each evaluation, NaN or −1 before
        the first. Records of single workers, as of `local_updates`, are left out.
    """

    def columns(self) -> dict[str, np.ndarray[Any, Any]]:
        """Columns of a table with a row for every trial and evaluation.

        They are the hyperparameters, ``seed``, ``step``, ``loss`` (NaN at the first
        evaluation), ``sent_bytes`` and ``received_bytes`` of a worker, if there are
        several, the metrics and what was recorded.
        """
        shape = (*self.losses.shape[:2], len(self.steps))
        rows, seeds, steps = (index.ravel() for index in np.indices(shape))
        first = np.full((*shape[:2], 1), np.nan)
        return {
            **{name: values[rows] for name, values in self.hyperparameters.items()},
            "seed": self.seeds[seeds],
            "step": self.steps[steps],
            "loss": np.concatenate([first, self.losses], axis=-1).ravel(),
            **(self._traffic(steps) if self.communicates else {}),
            **{name: values.ravel() for name, values in self.metrics.items()},
            **{name: values.ravel() for name, values in self.recorded.items()},
        }

    def _traffic(self, evaluations: Any) -> dict[str, np.ndarray[Any, Any]]:
        return {
            "sent_bytes": self.sent_bytes[evaluations],
            "received_bytes": self.received_bytes[evaluations],
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
        self,
        metric: str | None = None,
        hyperparameter: str | tuple[str, str] | None = None,
    ) -> "Figure":
        """Draws a final metric over one or two hyperparameters, and the best trials.

        Left: a curve over one hyperparameter, with red lines where seeds diverged; or a
        heat map over two, with cells of equal size, or points if the rows form no grid.
        If the sweep has others too, each value or pair is drawn with the row that is
        best by the task's goal. Right: losses of the row that is best of all.

        Lines and colors are medians over seeds, and bands all seeds. The axes end a
        little beyond the value before training and the best one; marks in a grey margin
        show what is outside.

        Args:
          metric: one that `curves` knows; by default the one that chooses.
          hyperparameter: name of the abscissa, or names of abscissa and ordinate; by
            default those with more than one value, at most two, and ``learning_rate``
            first.

        Raises:
          ValueError: there is no such metric or hyperparameter.
          ImportError: matplotlib is not installed.
        """
        return draw_sweep(self, metric, hyperparameter)

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
                "sent_bytes": self.sent_bytes,
                "received_bytes": self.received_bytes,
                "initial_losses": self.initial_losses,
                **{f"hyperparameter/{k}": v for k, v in self.hyperparameters.items()},
                **{f"metric/{k}": v for k, v in self.metrics.items()},
                **{f"recorded/{k}": v for k, v in self.recorded.items()},
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
        kinds = "hyperparameter", "metric", "recorded"
        groups: dict[str, dict[str, Any]] = {kind: {} for kind in kinds}
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
            recorded=groups["recorded"],
            losses=arrays["losses"],
            sent_bytes=arrays["sent_bytes"],
            received_bytes=arrays["received_bytes"],
            initial_losses=arrays["initial_losses"],
            **head,
        )
