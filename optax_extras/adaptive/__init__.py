"""Adaptive methods."""

from optax_extras.adaptive._adasmooth import (
    ScaleByAdaSmoothState as ScaleByAdaSmoothState,
    adasmooth as adasmooth,
    scale_by_adasmooth as scale_by_adasmooth,
)
