"""Adaptive methods."""

from optax_extras.adaptive._adasmooth import (
    ScaleByAdaSmoothState,
    adasmooth,
    scale_by_adasmooth,
)
from optax_extras.adaptive._qhadam import (
    ScaleByQHAdamState,
    qhadam,
    scale_by_qhadam,
)

__all__ = [
    "ScaleByAdaSmoothState",
    "scale_by_adasmooth",
    "adasmooth",
    "ScaleByQHAdamState",
    "scale_by_qhadam",
    "qhadam",
]
