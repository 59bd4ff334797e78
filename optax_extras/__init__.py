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
    AddNoiseState as AddNoiseState,
    PSGLDState as PSGLDState,
    add_anticorrelated_noise as add_anticorrelated_noise,
    add_decayed_noise as add_decayed_noise,
    add_langevin_noise as add_langevin_noise,
    anti_pgd as anti_pgd,
    noisy_sgd as noisy_sgd,
    psgld as psgld,
    sgld as sgld,
)
from optax_extras.schedules import (
    inverse_time_decay as inverse_time_decay,
    sutskever_momentum as sutskever_momentum,
)

__version__ = "0.1.0"

__all__ = [
    # Gradient noise.
    "AddNoiseState",
    "PSGLDState",
    "add_anticorrelated_noise",
    "add_decayed_noise",
    "add_langevin_noise",
    "anti_pgd",
    "noisy_sgd",
    "psgld",
    "sgld",
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
