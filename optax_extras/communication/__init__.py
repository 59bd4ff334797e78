"""Data-parallel training over slow links: compressed means and their optimizers."""

from optax_extras.communication._compiled import Collective, collective_bytes
from optax_extras.communication._dgc import (
    DeepGradientCompressionState,
    deep_gradient_compression,
)
from optax_extras.communication._gradients import local_value_and_grad
from optax_extras.communication._mean import CompressedMeanState, compressed_mean
from optax_extras.communication._power_sgd import power_sgd
from optax_extras.communication._wire import WireBytes, wire_bytes
from optax_extras.communication._workers import resize_workers, worker_specs

__all__ = [
    "Collective",
    "CompressedMeanState",
    "DeepGradientCompressionState",
    "WireBytes",
    "collective_bytes",
    "compressed_mean",
    "deep_gradient_compression",
    "local_value_and_grad",
    "power_sgd",
    "resize_workers",
    "wire_bytes",
    "worker_specs",
]
