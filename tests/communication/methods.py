"""One transformation of each kind that communicates, by name."""

import jax
import numpy as np
import optax

import optax_extras as ox
from optax_extras import compressors as c

from communication import local, workers
from communication.workers import N

COMPRESSORS = {
    "top_k": c.top_k(0.1, chunk=512),
    "2 bit values": c.top_k(0.1, chunk=512, bits=2),
    "dct_top_k": c.dct_top_k(8, chunk=16),
    "random_k": c.random_k(0.1, key=0),
    "8 bit": c.quantized(8, stochastic=True, key=0),
    "4 bit": c.quantized(4, block=64),
    "1 bit": c.sign(),
    "low_rank": c.low_rank(2),
}
OPTIMIZERS = {
    "dgc": lambda **axis: ox.deep_gradient_compression(0.1, density=0.1, **axis),
    "demo": lambda **axis: ox.demo(0.01, k=8, chunk=16, **axis),
    "power_sgd": lambda **axis: ox.power_sgd(0.1, **axis),
}
LOCAL = {
    "diloco": lambda **axis: ox.diloco(
        optax.adamw(0.02),
        every=4,
        compressor=c.quantized(4, block=64),
        fragments=2,
        **axis,
    ),
    "sparse_loco": lambda **axis: ox.sparse_loco(
        optax.adamw(0.02), every=4, density=0.1, chunk=512, **axis
    ),
    "fedavg": lambda **axis: ox.fedavg(optax.sgd(0.1, momentum=0.9), every=4, **axis),
}
METHODS = [*COMPRESSORS, *OPTIMIZERS, *LOCAL]


def method(name, workers=N, axis_name="data"):
    """An optimizer that sends as the name says."""
    made = {**OPTIMIZERS, **LOCAL}.get(name)
    if made is not None:
        return made(axis_name=axis_name, workers=workers)
    mean = ox.compressed_mean(COMPRESSORS[name], axis_name, workers=workers)
    return optax.chain(mean, optax.sgd(0.1, momentum=0.9))


def trained(name, grads, take=np.asarray):
    """What is taken of the updates of all steps, and parameters and state behind them.

    Of workers that train alone it is their parameters.
    """
    if name not in LOCAL:
        return workers.run(method(name), grads, take=take)
    params = jax.tree.map(lambda g: np.zeros(g.shape[2:], g.dtype), grads)
    return local.run(method(name), params, grads, take=take)
