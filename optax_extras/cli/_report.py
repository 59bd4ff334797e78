"""A comparison on disk and on the screen: two CSV files, a picture and a table."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from optax_extras.tuning import TrainingResult


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished training run of an optimizer, and the options it ran under."""

    optimizer: str
    settings: dict[str, Any]
    result: TrainingResult

    def final(self, metric: str) -> float:
        """A metric after the last step."""
        return float(self.result.metrics[metric][-1])

    def summary(self) -> dict[str, Any]:
        """A row of numbers."""
        return {
            "optimizer": self.optimizer,
            **self.settings,
            "train_loss": self.final("train_loss"),
            "test_accuracy": self.final("test_accuracy"),
            "steps_per_second": self.result.steps_per_second,
            "compile_seconds": self.result.compile_seconds,
            "state_bytes_per_parameter": self.result.state_bytes_per_parameter,
        }

    def curve(self) -> list[dict[str, Any]]:
        """A row for every step at which metrics were taken."""
        metrics = self.result.metrics
        return [
            {
                "optimizer": self.optimizer,
                "step": int(step),
                **{name: float(values[i]) for name, values in metrics.items()},
            }
            for i, step in enumerate(self.result.steps)
        ]


def write(runs: Sequence[Run], folder: Path, caption: str) -> list[Path]:
    """Writes `summary.csv`, `curves.csv` and `loss.png`; returns their paths."""
    contents = {
        "summary.csv": _csv([run.summary() for run in runs]),
        "curves.csv": _csv([row for run in runs for row in run.curve()]),
        "loss.png": _png(runs, caption),
    }
    paths = []
    for name, content in contents.items():
        # Replacing a file whole keeps the last one when interrupted here.
        unfinished = folder / f".{name}"
        unfinished.write_bytes(content)
        paths.append(unfinished.replace(folder / name))
    return paths


def table(runs: Sequence[Run]) -> Table:
    """The runs as a table for a terminal."""
    result = Table()
    result.add_column("optimizer", no_wrap=True)
    for heading in ("rate", "train loss", "test acc.", "steps/s", "state B/param"):
        result.add_column(heading, justify="right")
    for run in runs:
        loss = run.final("train_loss")
        result.add_row(
            run.optimizer,
            f"{run.settings['learning_rate']:g}",
            f"{loss:.4g}" if math.isfinite(loss) else "diverged",
            f"{100 * run.final('test_accuracy'):.1f} %",
            f"{run.result.steps_per_second:,.0f}",
            f"{run.result.state_bytes_per_parameter:.1f}",
        )
    return result


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _png(runs: Sequence[Run], caption: str) -> bytes:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    styles = ("-", "--", ":", "-.")
    for i, run in enumerate(runs):
        axes.plot(
            run.result.steps,
            run.result.metrics["train_loss"],
            label=f"{run.optimizer} ({run.settings['learning_rate']:g})",
            linestyle=styles[i % len(styles)],
        )
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy on the training set (nats)")
    axes.set_title(caption, fontsize="medium")
    axes.legend(title="optimizer (learning rate)", fontsize="small")
    axes.grid(alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, dpi=150)
    return image.getvalue()
