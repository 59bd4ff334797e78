"""Writes the last section of docs/evidence.md: losses against bytes, with 8 workers.

Run from the repository, with the `cli` extra:
``python docs/evidence_communication.py``. It takes about fifteen minutes on two cores.
Every number comes from here.
"""

from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

import optax_extras as ox
from optax_extras import compressors
from optax_extras.tasks import Task, characters, digits
from optax_extras.tuning import Comparison, SweepResult, sweep

FOLDER = Path(__file__).parent
MARK = "<!-- written by docs/evidence_communication.py -->\n"
AXIS, WORKERS, STEPS, WARM_UP = "data", 8, 200, 40
TUNING_SEEDS, FRESH_SEEDS = range(3), range(100, 120)
# A median counts as that of dense means up to this share of it.
CLOSE = 0.03
COLUMNS = ("method", "best rate", "MB sent", "MB received", "test loss", "gap to dense")


def sgd(compressor: Any, **options: Any) -> Any:
    """SGD with momentum after a compressed mean."""

    def make(learning_rate: Any) -> optax.GradientTransformation:
        mean = ox.compressed_mean(compressor, AXIS, workers=WORKERS, **options)
        return optax.chain(mean, optax.sgd(learning_rate, momentum=0.9))

    return make


def own(make: Any, **options: Any) -> Any:
    """An optimizer that communicates itself."""
    return partial(make, axis_name=AXIS, workers=WORKERS, **options)


DGC = partial(own, ox.deep_gradient_compression, warmup_steps=WARM_UP)
METHODS = {
    "dense": sgd(compressors.Dense()),
    "8 bit": sgd(compressors.quantized(8)),
    "4 bit": sgd(compressors.quantized(4)),
    "1 bit": sgd(compressors.sign()),
    "1 bit, no feedback": sgd(compressors.sign(), feedback=False),
    "top 1 %": sgd(compressors.top_k(0.01)),
    "top 1 %, no feedback": sgd(compressors.top_k(0.01), feedback=False),
    "DGC 1 %": DGC(density=0.01),
    "DGC 0.1 %": DGC(density=0.001),
    "PowerSGD, rank 2": own(ox.power_sgd, rank=2),
    "PowerSGD, rank 4": own(ox.power_sgd, rank=4),
}
TASKS = {
    "digits": (partial(digits, hidden=256), np.geomspace(0.003, 0.3, 5)),
    # Small enough to train 385 times.
    "characters": (
        partial(characters, length=16, width=32),
        np.geomspace(0.03, 3.0, 5),
    ),
}


@cache
def task(name: str) -> Task:
    """Cached task, so that sweeps share its compiled programs."""
    make, _ = TASKS[name]
    return make()


def run(name: str, method: str, rates: Any, seeds: range) -> SweepResult:
    """A sweep over learning rates."""
    mesh = Mesh(np.array(jax.devices()[:WORKERS]), (AXIS,))
    return sweep(
        task(name),
        METHODS[method],
        {"learning_rate": rates},
        steps=STEPS,
        seeds=seeds,
        eval_every=STEPS // 10,
        worker_mesh=mesh,
    )


@cache
def tuned(name: str, method: str) -> SweepResult:
    """The sweep that chooses the learning rate."""
    _, rates = TASKS[name]
    return run(name, method, rates, TUNING_SEEDS)


@cache
def fresh(name: str, method: str) -> SweepResult:
    """The best learning rate, with seeds that did not choose it."""
    best = tuned(name, method).best()["learning_rate"]
    return run(name, method, [best], FRESH_SEEDS)


def ends(name: str, method: str) -> np.ndarray:
    """The test loss of each fresh seed, infinite where it diverged."""
    found = fresh(name, method).final(task(name).goal.reported)[0]
    return np.where(np.isfinite(found), found, np.inf)


def row(name: str, method: str) -> str:
    """A method's row of a task's table."""
    result, values = fresh(name, method), ends(name, method)
    dense = np.median(ends(name, "dense"))
    sent, received = result.sent_bytes[-1] / 1e6, result.received_bytes[-1] / 1e6
    best = result.hyperparameters["learning_rate"][0]
    rates = tuned(name, method).hyperparameters["learning_rate"]
    edge = " (end of the grid)" if best in (rates.min(), rates.max()) else ""
    gap = np.median(values) / dense - 1
    verdict = "as dense" if abs(gap) <= CLOSE else "better" if gap < 0 else "worse"
    if method == "dense":
        verdict = ""
    return (
        f"| {method} | {best:.2g}{edge} | {sent:.3g} | {received:.3g} |"
        f" {np.median(values):.3f} ({values.min():.3f} to {values.max():.3f}) |"
        f" {gap:+.1%} {verdict} |"
    )


def picture(name: str) -> str:
    """Draws the sweeps of a task, and returns the path relative to the page."""
    path = FOLDER / "images" / f"evidence-communication-{name}.png"
    comparison = Comparison({method: tuned(name, method) for method in METHODS})
    _, rates = TASKS[name]
    title = (
        f"{task(name).name}: {len(rates)} learning rates × {len(TUNING_SEEDS)} seeds,"
        f" {STEPS} steps, {WORKERS} workers"
    )
    comparison.plot(title).savefig(path, dpi=110)
    return path.relative_to(FOLDER).as_posix()


def section() -> str:
    """Text of the section."""
    lines = [
        "## Losses against bytes: training with 8 workers",
        "",
        "`python docs/evidence_communication.py` writes this section. Each method"
        f" trains with SGD and momentum 0.9 for {STEPS} steps on {WORKERS} host"
        " devices, each of which has an eighth of every mini-batch. The learning rate"
        f" is chosen from five by {len(TUNING_SEEDS)} seeds and the validation part;"
        f" losses are those of the test part for {len(FRESH_SEEDS)} other seeds: the"
        " median, and the lowest and highest. Megabytes are those of one worker in all"
        " steps, as `wire_bytes` counts them. They contain the leaves of fewer than"
        " 1024 elements, which every method averages densely. DGC lowers its density"
        f" during the first {WARM_UP} steps. A median within {CLOSE:.0%} of that of"
        " dense means counts as equal.",
    ]
    for name in TASKS:
        lines += [
            "",
            f"### {task(name).name}, 8 workers",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|---" * len(COLUMNS) + "|",
            *(row(name, method) for method in METHODS),
            "",
            f"![{name}: loss against bytes]({picture(name)})",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the section and its pictures."""
    jax.config.update("jax_num_cpu_devices", WORKERS)
    page = FOLDER / "evidence.md"
    before, _, _ = page.read_text().partition(MARK)
    page.write_text(before.rstrip() + "\n\n" + MARK + "\n" + section())


if __name__ == "__main__":
    main()
