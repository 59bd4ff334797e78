"""Writes a section of docs/evidence.md: losses against bytes, with 8 workers.

Run from the repository, with the `cli` extra:
``python docs/evidence_communication.py``. It takes about fifteen minutes on two cores.
Every number comes from here.
"""

from functools import partial

import jax
import numpy as np
from study import FRESH_SEEDS, Method, Study, gap, table, write_section
from worker_study import CLOSE, TUNING_SEEDS, WORKERS, columns, own, picture, sgd

import optax_extras as ox
from optax_extras import compressors
from optax_extras.tasks import characters, digits

STEPS, WARM_UP = 200, 40
HEAD = ("method", "best rate", "MB sent", "MB received", "test loss", "gap to dense")

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


def row(study: Study, method: str) -> list[str]:
    """A method's row of a task's table."""
    found = gap(study, method, "dense")
    verdict = "as dense" if abs(found) <= CLOSE else "better" if found < 0 else "worse"
    if method == "dense":
        verdict = ""
    return [*columns(study, method), f"{found:+.1%} {verdict}"]


def section() -> list[str]:
    """Lines of the section."""
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
    for name, (make_task, rates) in TASKS.items():
        methods = {
            method: Method(make, {"learning_rate": rates})
            for method, make in METHODS.items()
        }
        study = Study(
            f"communication-{name}", make_task(), methods, STEPS, TUNING_SEEDS, WORKERS
        )
        lines += [
            "",
            f"### {study.task.name}, 8 workers",
            "",
            *table(HEAD, [row(study, method) for method in methods]),
            "",
            picture(study),
        ]
    return lines


def main() -> None:
    """Writes the section and its pictures."""
    jax.config.update("jax_num_cpu_devices", WORKERS)
    write_section("evidence_communication", section())


if __name__ == "__main__":
    main()
