"""The table of parity as data: methods of several workers, on four devices."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import parity_worker_numpy as paper
from parity_steps import Path, Row, deviation
from parity_workers import AXIS, PARAMS, RATE, N, apart, together

import optax_extras as ox
from optax_extras import compressors

# Of PowerSGD: the power iteration amplifies rounding.
FEW = 20
FAR = 0.1
SINGLE = {"bound": 1e-3}
EXACT = {"bound": 1e-6}
WEIGHTS = np.arange(1.0, N + 1)


def first_factors(tx: Any) -> np.ndarray:
    """The right factors with which PowerSGD begins."""
    params = {name: jnp.asarray(p, jnp.float32) for name, p in PARAMS.items()}
    state = tx.init(params)
    return np.asarray(state[0].compressor.value)[0, 1:].reshape(30, 2)


def first(path: Path) -> Path:
    """The steps before rounding has grown."""
    return {name: steps[:FEW] for name, steps in path.items()}


def growth() -> float:
    """How far single precision takes PowerSGD in NumPy from double precision."""
    start = first_factors(ox.power_sgd(RATE, 2, 0.9, **AXIS))
    single, double = (
        paper.power_sgd(start, 0.9, dtype) for dtype in (np.float32, np.float64)
    )
    return deviation(single, double)


def gradient_rows() -> Iterator[Row]:
    """Means of gradients at every step."""
    yield Row(
        names=("compressed_mean",),
        options="top_k, a tenth of the elements",
        reference="error feedback as the papers write it",
        ours=lambda: together(ox.compressed_mean(compressors.top_k(0.1), **AXIS)),
        theirs=partial(paper.with_feedback, 0.1),
        **EXACT,
    )
    yield Row(
        names=("deep_gradient_compression",),
        options="a tenth of the elements, momentum ½",
        reference="the paper's equations, with values of bfloat16",
        ours=lambda: together(
            ox.deep_gradient_compression(RATE, 0.5, 0.1, **AXIS),
        ),
        theirs=partial(paper.dgc, 0.1, 0.5),
        **EXACT,
    )
    power = ox.power_sgd(RATE, 2, 0.9, **AXIS)
    yield Row(
        names=("power_sgd",),
        options=f"rank 2; the first {FEW} steps",
        reference="the paper's algorithm",
        ours=lambda: first(together(power)),
        theirs=lambda: first(paper.power_sgd(first_factors(power), 0.9)),
        **SINGLE,
    )
    yield Row(
        names=("demo",),
        options="k = 8, chunks of 16",
        reference="the paper's equations, with values of bfloat16",
        ours=lambda: together(ox.demo(RATE, decay=0.5, k=8, chunk=16, **AXIS)),
        theirs=partial(paper.demo, 8, 16, 0.5, RATE),
        measure=paper.others,
        unit="of the signs",
        **SINGLE,
    )


def local_rows() -> Iterator[Row]:
    """Workers that train alone; their parameters less the first ones are compared."""
    adamw = optax.adamw(0.02, weight_decay=0.01)
    inner = partial(paper.local, paper.adamw, rate=0.02)
    yield Row(
        names=("local_updates",),
        options="AdamW, every 4 steps; parameters",
        reference="the mean of the workers' parameters",
        ours=lambda: apart(ox.local_updates(adamw, optax.sgd(1.0), 4, **AXIS)),
        theirs=partial(inner, 4),
        **SINGLE,
    )
    yield Row(
        names=("diloco",),
        options="AdamW, every 10 steps; parameters",
        reference="the paper's algorithm",
        ours=lambda: apart(ox.diloco(adamw, 0.7, 0.9, 10, **AXIS)),
        theirs=partial(inner, 10, outer=(0.7, 0.9)),
        **SINGLE,
    )
    yield Row(
        names=("fedavg",),
        options="SGD, every 5 steps, clients of 1 to 4 examples; parameters",
        reference="the paper's algorithm",
        ours=lambda: apart(ox.fedavg(optax.sgd(RATE), 5, **AXIS), WEIGHTS),
        theirs=lambda: paper.local(paper.sgd, 5, rate=RATE, weights=WEIGHTS),
        **SINGLE,
    )
    sparse = {"density": 0.1, "chunk": 512}
    yield Row(
        names=("sparse_loco",),
        options="SGD, every 4 steps, a tenth in 2 bits; parameters",
        reference="the paper's equations, with the two levels of least error",
        ours=lambda: apart(
            ox.sparse_loco(optax.sgd(RATE), 0.5, 4, 0.5, **sparse, **AXIS)
        ),
        theirs=lambda: paper.local(
            paper.sgd,
            4,
            rate=RATE,
            outer=(0.5, 0.0),
            decay=0.5,
            code=lambda x: paper.two_levels(x, **sparse),
        ),
        **SINGLE,
    )
