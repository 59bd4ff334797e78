"""Optimizers in less memory."""

from optax_extras.memory._compress_state import CompressState, compress_state

__all__ = ["CompressState", "compress_state"]
