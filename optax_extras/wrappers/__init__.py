"""Transformations around any transformation."""

from optax_extras.wrappers._skip_spikes import SkipSpikesState, skip_spikes

__all__ = ["SkipSpikesState", "skip_spikes"]
