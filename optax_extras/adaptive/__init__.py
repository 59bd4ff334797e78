"""Adaptive methods."""

from optax_extras.adaptive._adasmooth import (
    ScaleByAdaSmoothState,
    adasmooth,
    scale_by_adasmooth,
)

__all__ = [
    "ScaleByAdaSmoothState",
    "scale_by_adasmooth",
    "adasmooth",
]
