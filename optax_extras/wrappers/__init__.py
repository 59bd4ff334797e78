"""Transformations around any transformation."""

from optax_extras.wrappers._record import record
from optax_extras.wrappers._recorded import RecordState, leaf_paths, recorded

__all__ = ["RecordState", "leaf_paths", "record", "recorded"]
