"""Momentum."""

from optax_extras.momentum._nesterov import (
    NesterovLookaheadState,
    nesterov_lookahead,
    nesterov_lookahead_params,
)
from optax_extras.momentum._trace import (
    TraceWithBiasCorrectionState,
    momentum_sgd,
    trace_with_bias_correction,
)

__all__ = [
    "TraceWithBiasCorrectionState",
    "trace_with_bias_correction",
    "momentum_sgd",
    "NesterovLookaheadState",
    "nesterov_lookahead",
    "nesterov_lookahead_params",
]
