"""Methods on a task: sweeps that tune and judge them, tables, sections of a page."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from optax_extras.tasks import Task
from optax_extras.tuning import SweepResult, sweep

FOLDER = Path(__file__).parent
PAGE = FOLDER / "evidence.md"
AXIS = "data"
FRESH_SEEDS = range(100, 120)


@dataclasses.dataclass(frozen=True)
class Method:
    """A method and what is tuned.

    Attributes:
      make: makes the optimizer from hyperparameters.
      grid: values of each hyperparameter, by name; the first is the learning rate.
      task: what it trains, if that is not the task of the study.
    """

    make: Callable[..., optax.GradientTransformation]
    grid: Mapping[str, Sequence[float] | np.ndarray]
    task: Task | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """Methods on one task.

    Attributes:
      name: of its files.
      task: what is trained.
      methods: by name.
      steps: of each trial.
      tuning_seeds: those that choose the hyperparameters.
      workers: devices that train each trial together, or None.
      folder: where finished sweeps are kept, or None.
      chosen_by: maps a method to the sweep whose best hyperparameters it takes; None
        for its own.
    """

    name: str
    task: Task
    methods: Mapping[str, Method]
    steps: int
    tuning_seeds: range
    workers: int | None = None
    folder: Path | None = None
    chosen_by: Callable[[str], SweepResult] | None = None


def run(study: Study, method: str, grid: Mapping[str, Any], seeds: range) -> Any:
    """A sweep over some hyperparameters."""
    file = re.sub(r"\W+", "-", f"{study.name} {method} {seeds[0]}") + ".npz"
    mesh = None
    if study.workers is not None:
        mesh = Mesh(np.array(jax.devices()[: study.workers]), (AXIS,))
    chosen = study.methods[method]
    return sweep(
        chosen.task or study.task,
        chosen.make,
        grid,
        steps=study.steps,
        seeds=seeds,
        eval_every=study.steps // 10,
        worker_mesh=mesh,
        resume=None if study.folder is None else study.folder / file,
    )


@cache
def tuned(study: Study, method: str) -> SweepResult:
    """The sweep that chooses the hyperparameters."""
    if study.chosen_by is not None:
        return study.chosen_by(method)
    return run(study, method, study.methods[method].grid, study.tuning_seeds)


@cache
def fresh(study: Study, method: str) -> SweepResult:
    """The best hyperparameters, with seeds that did not choose them."""
    best = {name: [value] for name, value in tuned(study, method).best().items()}
    return run(study, method, best, FRESH_SEEDS)


def ends(study: Study, method: str) -> np.ndarray:
    """What is reported of each fresh seed, infinitely bad where it diverged."""
    goal = study.task.goal
    found = fresh(study, method).final(goal.reported)[0]
    return np.where(
        np.isfinite(found), found, np.inf if goal.mode == "min" else -np.inf
    )


def gap(study: Study, method: str, peer: str) -> float:
    """By how much the median is above that of another method, as a share of it."""
    return float(np.median(ends(study, method)) / np.median(ends(study, peer)) - 1)


def rates(study: Study, method: str) -> str:
    """The best hyperparameters, and whether one is at an end of its values."""
    texts = []
    for name, best in tuned(study, method).best().items():
        values = study.methods[method].grid[name]
        edge = " (end of the grid)" if best in (min(values), max(values)) else ""
        label = "" if name == "learning_rate" else name.replace("_", " ") + " "
        texts.append(f"{label}{best:.2g}{edge if len(values) > 1 else ''}")
    return ", ".join(texts)


def spread(values: np.ndarray) -> str:
    """Median and range as text."""
    return f"{np.median(values):.3f} ({values.min():.3f} to {values.max():.3f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def mark(script: str) -> str:
    """The line in front of the section that a script writes."""
    return f"<!-- written by docs/{script}.py -->\n"


def write_section(script: str, lines: Sequence[str]) -> None:
    """Replaces the section of a script, or appends it."""
    start, text = mark(script), "\n".join(lines) + "\n"
    before, _, after = PAGE.read_text().partition(start)
    following = re.search(mark(r"\w+"), after)
    kept = "\n" + after[following.start() :] if following else ""
    PAGE.write_text(before.rstrip() + "\n\n" + start + "\n" + text + kept)
