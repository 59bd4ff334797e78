"""Sweeps, comparisons and range tests of optimizers; tasks are re-exported."""

from optax_extras import tasks
from optax_extras.tasks import *  # noqa: F403
from optax_extras.tuning._comparison import Comparison, Summary
from optax_extras.tuning._progress import progress_bar
from optax_extras.tuning._range_test import LRRangeResult, Suggestion, lr_range_test
from optax_extras.tuning._result import SweepResult
from optax_extras.tuning._sweep import sweep

__all__ = [
    "Comparison",
    "LRRangeResult",
    "Suggestion",
    "Summary",
    "SweepResult",
    "lr_range_test",
    "progress_bar",
    "sweep",
    *tasks.__all__,
]
