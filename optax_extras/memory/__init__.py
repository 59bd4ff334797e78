"""Bytes of optimizers."""

from optax_extras.memory._bytes_plan import BytesPlan, FieldBytes
from optax_extras.memory._plan import plan_bytes

__all__ = [
    "FieldBytes",
    "BytesPlan",
    "plan_bytes",
]
