"""Momentum."""

from optax_extras.momentum._nesterov import (
    NesterovLookaheadState as NesterovLookaheadState,
    nesterov_lookahead as nesterov_lookahead,
    nesterov_lookahead_params as nesterov_lookahead_params,
)
from optax_extras.momentum._trace import (
    TraceWithBiasCorrectionState as TraceWithBiasCorrectionState,
    momentum_sgd as momentum_sgd,
    trace_with_bias_correction as trace_with_bias_correction,
)
