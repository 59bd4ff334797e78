"""Momentum."""

from optax_extras.momentum._aggregated import (
    ScaleByAggregatedMomentumState,
    aggmo,
    scale_by_aggregated_momentum,
)
from optax_extras.momentum._nesterov import (
    NesterovLookaheadState,
    nesterov_lookahead,
    nesterov_lookahead_params,
)
from optax_extras.momentum._quasi_hyperbolic import (
    ScaleByQuasiHyperbolicMomentumState,
    qhm,
    scale_by_quasi_hyperbolic_momentum,
)
from optax_extras.momentum._scheduled_restart import SRSGDState, srsgd
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
    "ScaleByQuasiHyperbolicMomentumState",
    "scale_by_quasi_hyperbolic_momentum",
    "qhm",
    "ScaleByAggregatedMomentumState",
    "scale_by_aggregated_momentum",
    "aggmo",
    "SRSGDState",
    "srsgd",
]
