"""Optimizers in less memory."""

from optax_extras.memory._bfloat16_params import (
    KeepBfloat16ParamsState,
    keep_bfloat16_params,
)
from optax_extras.memory._bytes_plan import BytesPlan, FieldBytes
from optax_extras.memory._compress_state import CompressState, compress_state
from optax_extras.memory._decompress_state import decompress_state
from optax_extras.memory._plan import plan_bytes

__all__ = [
    "CompressState",
    "compress_state",
    "decompress_state",
    "KeepBfloat16ParamsState",
    "keep_bfloat16_params",
    "FieldBytes",
    "BytesPlan",
    "plan_bytes",
]
