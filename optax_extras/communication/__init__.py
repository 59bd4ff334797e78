"""Data-parallel training over slow links: compressed means and their optimizers."""

from optax_extras._core.placement import PerWorker
from optax_extras.communication._compiled import Collective, collective_bytes
from optax_extras.communication._demo import demo
from optax_extras.communication._dgc import (
    DeepGradientCompressionState,
    deep_gradient_compression,
)
from optax_extras.communication._gradients import local_value_and_grad
from optax_extras.communication._local_updates import (
    LocalUpdatesState,
    local_updates,
)
from optax_extras.communication._mean import CompressedMeanState, compressed_mean
from optax_extras.communication._outer import diloco, fedavg, sparse_loco
from optax_extras.communication._parameters import own_params, worker_params
from optax_extras.communication._power_sgd import power_sgd
from optax_extras.communication._reference import apply_local_updates, outer_params
from optax_extras.communication._resizing import resize_workers
from optax_extras.communication._wire import WireBytes, wire_bytes
from optax_extras.communication._workers import worker_specs

__all__ = [
    "Collective",
    "CompressedMeanState",
    "DeepGradientCompressionState",
    "LocalUpdatesState",
    "PerWorker",
    "WireBytes",
    "apply_local_updates",
    "collective_bytes",
    "compressed_mean",
    "deep_gradient_compression",
    "demo",
    "diloco",
    "fedavg",
    "local_updates",
    "local_value_and_grad",
    "outer_params",
    "own_params",
    "power_sgd",
    "resize_workers",
    "sparse_loco",
    "wire_bytes",
    "worker_params",
    "worker_specs",
]
