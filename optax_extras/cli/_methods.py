"""Methods of communication that the command knows by name."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import optax

import optax_extras
from optax_extras import compressors
from optax_extras.cli._optimizers import Factory
from optax_extras.compressors import Compressor
from optax_extras.typing import AxisName

AXIS = "data"


def _sgd(
    make_compressor: Callable[..., Compressor],
    learning_rate: Any,
    *,
    axis_name: AxisName,
    workers: int,
    momentum: float = 0.9,
    feedback: bool = True,
    min_size: int = 1024,
    **arguments: Any,
) -> optax.GradientTransformation:
    """SGD with momentum after a compressed mean."""
    mean = optax_extras.compressed_mean(
        make_compressor(**arguments),
        axis_name,
        workers=workers,
        feedback=feedback,
        min_size=min_size,
    )
    return optax.chain(mean, optax.sgd(learning_rate, momentum))


def _local_sgd(
    learning_rate: Any,
    *,
    momentum: float = 0.9,
    outer_rate: float = 1.0,
    **options: Any,
) -> optax.GradientTransformation:
    """SGD with momentum on each worker, and means of the parameters."""
    inner = optax.sgd(learning_rate, momentum)
    return optax_extras.fedavg(inner, learning_rate=outer_rate, **options)


def _local_adamw(
    make: Callable[..., optax.GradientTransformation],
    learning_rate: Any,
    *,
    outer_rate: float,
    weight_decay: float = 1e-4,
    **options: Any,
) -> optax.GradientTransformation:
    """AdamW on each worker, between exchanges."""
    inner = optax.adamw(learning_rate, weight_decay=weight_decay)
    return make(inner, learning_rate=outer_rate, **options)


METHODS: Mapping[str, Factory] = {
    "dense": partial(_sgd, compressors.Dense),
    "top-k": partial(_sgd, compressors.top_k, density=0.01),
    "random-k": partial(_sgd, compressors.random_k, density=0.01, key=0),
    "dgc": partial(optax_extras.deep_gradient_compression, density=0.01),
    "8-bit": partial(_sgd, compressors.quantized, bits=8),
    "4-bit": partial(_sgd, compressors.quantized, bits=4),
    "1-bit": partial(_sgd, compressors.sign),
    "power-sgd": optax_extras.power_sgd,
    "demo": optax_extras.demo,
    # These vary the learning rate of the workers.
    "local-sgd": partial(_local_sgd, every=10),
    "diloco": partial(_local_adamw, optax_extras.diloco, outer_rate=0.7, every=30),
    "sparse-loco": partial(
        _local_adamw, optax_extras.sparse_loco, outer_rate=1.0, every=30
    ),
}
# What the command gives to a method.
GIVEN_TO_METHODS = {
    "learning_rate": "the command varies it",
    "key": "it has one",
    "axis_name": f"it is {AXIS!r}",
    "workers": "--workers says how many",
}
