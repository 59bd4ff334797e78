"""Methods that 8 workers train with, their columns of a table and their pictures."""

from functools import partial
from typing import Any

import optax
from study import AXIS, FOLDER, Study, ends, fresh, rates, spread, tuned

import optax_extras as ox
from optax_extras.tuning import Comparison

WORKERS, TUNING_SEEDS = 8, range(3)
# A median counts as that of dense means up to this share of it.
CLOSE = 0.03


def sgd(compressor: Any, **options: Any) -> Any:
    """SGD with momentum after a compressed mean."""

    def make(learning_rate: Any) -> optax.GradientTransformation:
        mean = ox.compressed_mean(compressor, AXIS, workers=WORKERS, **options)
        return optax.chain(mean, optax.sgd(learning_rate, momentum=0.9))

    return make


def own(make: Any, **options: Any) -> Any:
    """An optimizer that communicates itself."""
    return partial(make, axis_name=AXIS, workers=WORKERS, **options)


def columns(study: Study, method: str) -> list[str]:
    """Name, rates, megabytes and losses of a method."""
    result, values = fresh(study, method), ends(study, method)
    sent, received = result.sent_bytes[-1] / 1e6, result.received_bytes[-1] / 1e6
    return [
        method,
        rates(study, method),
        f"{sent:.3g}",
        f"{received:.3g}",
        spread(values),
    ]


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
