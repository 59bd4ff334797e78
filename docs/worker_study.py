"""Methods that 8 workers train with: sweeps, tables, pictures, sections of a page."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

import optax_extras as ox
from optax_extras.tasks import Task
from optax_extras.tuning import Comparison, SweepResult, sweep

FOLDER = Path(__file__).parent
PAGE = FOLDER / "evidence.md"
AXIS, WORKERS = "data", 8
TUNING_SEEDS, FRESH_SEEDS = range(3), range(100, 120)
# A median counts as that of dense means up to this share of it.
CLOSE = 0.03


@dataclasses.dataclass(frozen=True)
class Method:
    """A method and what is tuned.

    Attributes:
      make: makes the optimizer from hyperparameters.
      grid: values of each hyperparameter, by name; the first is the learning rate.
    """

    make: Callable[..., optax.GradientTransformation]
    grid: Mapping[str, Sequence[float] | np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """Methods on one task.

    Attributes:
      name: of the picture's file.
      task: what is trained.
      methods: by name.
      steps: of each trial.
      folder: where finished sweeps are kept, or None.
      chosen_by: the study whose best hyperparameters are taken; None for this one.
    """

    name: str
    task: Task
    methods: Mapping[str, Method]
    steps: int
    folder: Path | None = None
    chosen_by: "Study | None" = None


def sgd(compressor: Any, **options: Any) -> Any:
    """SGD with momentum after a compressed mean."""

    def make(learning_rate: Any) -> optax.GradientTransformation:
        mean = ox.compressed_mean(compressor, AXIS, workers=WORKERS, **options)
        return optax.chain(mean, optax.sgd(learning_rate, momentum=0.9))

    return make


def own(make: Any, **options: Any) -> Any:
    """An optimizer that communicates itself."""
    return partial(make, axis_name=AXIS, workers=WORKERS, **options)


def run(study: Study, method: str, grid: Mapping[str, Any], seeds: range) -> Any:
    """A sweep over some hyperparameters."""
    file = re.sub(r"\W+", "-", f"{study.name} {method} {seeds[0]}") + ".npz"
    return sweep(
        study.task,
        study.methods[method].make,
        grid,
        steps=study.steps,
        seeds=seeds,
        eval_every=study.steps // 10,
        worker_mesh=Mesh(np.array(jax.devices()[:WORKERS]), (AXIS,)),
        resume=None if study.folder is None else study.folder / file,
    )


@cache
def tuned(study: Study, method: str) -> SweepResult:
    """The sweep that chooses the hyperparameters."""
    if study.chosen_by is not None:
        return tuned(study.chosen_by, method)
    return run(study, method, study.methods[method].grid, TUNING_SEEDS)


@cache
def fresh(study: Study, method: str) -> SweepResult:
    """The best hyperparameters, with seeds that did not choose them."""
    best = {name: [value] for name, value in tuned(study, method).best().items()}
    return run(study, method, best, FRESH_SEEDS)


def ends(study: Study, method: str) -> np.ndarray:
    """The test loss of each fresh seed, infinite where it diverged."""
    found = fresh(study, method).final(study.task.goal.reported)[0]
    return np.where(np.isfinite(found), found, np.inf)


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


def columns(study: Study, method: str) -> list[str]:
    """Name, rates, megabytes and losses of a method."""
    result, values = fresh(study, method), ends(study, method)
    sent, received = result.sent_bytes[-1] / 1e6, result.received_bytes[-1] / 1e6
    spread = f"{np.median(values):.3f} ({values.min():.3f} to {values.max():.3f})"
    return [method, rates(study, method), f"{sent:.3g}", f"{received:.3g}", spread]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def picture(study: Study) -> str:
    """Draws the tuning sweeps over megabytes, and returns the line that shows them."""
    path = FOLDER / "images" / f"evidence-{study.name}.png"
    comparison = Comparison({name: tuned(study, name) for name in study.methods})
    title = (
        f"{study.task.name}: {len(TUNING_SEEDS)} seeds, {study.steps} steps,"
        f" {WORKERS} workers"
    )
    comparison.plot(title).savefig(path, dpi=110)
    where = path.relative_to(FOLDER).as_posix()
    return f"![{study.name}: loss against bytes]({where})"


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
