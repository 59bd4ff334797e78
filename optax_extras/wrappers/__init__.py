"""Transformations around any transformation."""

from optax_extras.wrappers._bucketed import BucketedState, bucketed
from optax_extras.wrappers._stacked import StackedState, stacked

__all__ = [
    "BucketedState",
    "bucketed",
    "StackedState",
    "stacked",
]
