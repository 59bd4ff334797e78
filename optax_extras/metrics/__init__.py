"""Scalars of a training step, for `optax_extras.record`.

`grad_norm`, `update_norm`, `param_norm`, `update_ratio`, `first_nonfinite` and
`noise_scale` are bundled; one of your own is a function, or a `Metric`.
"""

from optax_extras.metrics._metric import Metric, Step
from optax_extras.metrics._noise_scale import NoiseScaleState, noise_scale
from optax_extras.metrics._nonfinite import first_nonfinite
from optax_extras.metrics._norms import (
    grad_norm,
    param_norm,
    update_norm,
    update_ratio,
)

__all__ = [
    "Metric",
    "NoiseScaleState",
    "Step",
    "first_nonfinite",
    "grad_norm",
    "noise_scale",
    "param_norm",
    "update_norm",
    "update_ratio",
]
