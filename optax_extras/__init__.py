"""Gradient noise, momentum and adaptive smoothing as optax gradient transformations."""

from optax_extras.adaptive import (
    ScaleByAdaSmoothState as ScaleByAdaSmoothState,
    adasmooth as adasmooth,
    scale_by_adasmooth as scale_by_adasmooth,
)
from optax_extras.momentum import (
    NesterovLookaheadState as NesterovLookaheadState,
    TraceWithBiasCorrectionState as TraceWithBiasCorrectionState,
    momentum_sgd as momentum_sgd,
    nesterov_lookahead as nesterov_lookahead,
    nesterov_lookahead_params as nesterov_lookahead_params,
    trace_with_bias_correction as trace_with_bias_correction,
)
from optax_extras.noise import (
    AddDecayedNoiseState as AddDecayedNoiseState,
    add_decayed_noise as add_decayed_noise,
    noisy_sgd as noisy_sgd,
)
from optax_extras.schedules import (
    inverse_time_decay as inverse_time_decay,
    sutskever_momentum as sutskever_momentum,
)

__version__ = "0.1.0"

__all__ = [
    # Gradient noise.
    "AddDecayedNoiseState",
    "add_decayed_noise",
    "noisy_sgd",
    # Momentum.
    "NesterovLookaheadState",
    "TraceWithBiasCorrectionState",
    "momentum_sgd",
    "nesterov_lookahead",
    "nesterov_lookahead_params",
    "trace_with_bias_correction",
    # Adaptive methods.
    "ScaleByAdaSmoothState",
    "adasmooth",
    "scale_by_adasmooth",
    # Schedules.
    "inverse_time_decay",
    "sutskever_momentum",
]
