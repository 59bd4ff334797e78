"""The methods with optax and optax_extras that train over a link."""

from typing import Any, NamedTuple

import jax
import optax
from jax.flatten_util import ravel_pytree

import optax_extras
from optax_extras import compressors

from link_model import DENSE, LOCAL, MOMENTUM, RATE, WORKERS

AXIS = "data"
# The second one is that of workers that train alone.
ADAMW_RATES, DEMO_RATE = (1e-3, 3e-4), 1e-3


class Method(NamedTuple):
    """An optimizer, and the steps from one exchange to the next."""

    optimizer: optax.GradientTransformation
    every: int = 1


def _dense_mean() -> optax.GradientTransformation:
    """The mean over the workers, in one collective."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        flat, unravel = ravel_pytree(updates)
        return unravel(jax.lax.pmean(flat, AXIS)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


GROUP: dict[str, Any] = {"axis_name": AXIS, "workers": WORKERS}
SGD = optax.sgd(RATE, MOMENTUM)
ADAMW = optax.adamw(ADAMW_RATES[1])
DENSE_MEANS = {
    DENSE: Method(optax.chain(_dense_mean(), SGD)),
    **{
        f"{DENSE}, AdamW {rate:g}": Method(
            optax.chain(_dense_mean(), optax.adamw(rate))
        )
        for rate in ADAMW_RATES
    },
}


def _quantized(bits: int) -> Method:
    mean = optax_extras.compressed_mean(compressors.quantized(bits), **GROUP)
    return Method(optax.chain(mean, SGD))


COMPRESSED = {
    "DGC, 0.1 %": Method(
        optax_extras.deep_gradient_compression(RATE, MOMENTUM, 0.001, **GROUP)
    ),
    **{f"quantized, {bits} bit": _quantized(bits) for bits in (8, 4, 1)},
    **{
        f"PowerSGD, rank {rank}": Method(
            optax_extras.power_sgd(RATE, rank, MOMENTUM, **GROUP)
        )
        for rank in (2, 4)
    },
}
DEMO = {"DeMo": Method(optax_extras.demo(DEMO_RATE, **GROUP))}


def _diloco(every: int, **settings: Any) -> Method:
    return Method(optax_extras.diloco(ADAMW, every=every, **settings, **GROUP), every)


def _sparse_loco(every: int) -> Method:
    return Method(optax_extras.sparse_loco(ADAMW, every=every, **GROUP), every)


LOCALLY = {  # workers train alone between exchanges
    "LocalSGD, H = 10": Method(optax_extras.fedavg(SGD, 10, **GROUP), 10),
    "DiLoCo, H = 30": _diloco(30),
    "DiLoCo, H = 100": _diloco(100),
    "DiLoCo, H = 100, 4 bit": _diloco(100, compressor=compressors.quantized(4)),
    "Streaming DiLoCo, H = 100": _diloco(100, fragments=4),
    "SparseLoCo, H = 30": _sparse_loco(30),
    "SparseLoCo, H = 100": _sparse_loco(100),
}
METHODS = {LOCAL: Method(SGD), **DENSE_MEANS, **COMPRESSED, **DEMO, **LOCALLY}
