"""Clipping by the history of gradient norms."""

from optax_extras.clipping._percentile import (
    ClipByPercentileState,
    clip_by_percentile,
)
from optax_extras.clipping._zscore import ClipByZScoreState, clip_by_zscore

__all__ = [
    "ClipByPercentileState",
    "clip_by_percentile",
    "ClipByZScoreState",
    "clip_by_zscore",
]
