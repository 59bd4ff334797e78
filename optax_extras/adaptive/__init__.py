"""Adaptive methods."""

from optax_extras.adaptive._adai import ScaleByAdaiState, adai, scale_by_adai
from optax_extras.adaptive._adashift import (
    ScaleByAdaShiftState,
    adashift,
    scale_by_adashift,
)
from optax_extras.adaptive._adasmooth import (
    ScaleByAdaSmoothState,
    adasmooth,
    scale_by_adasmooth,
)
from optax_extras.adaptive._diffgrad import (
    ScaleByDiffGradState,
    diffgrad,
    scale_by_diffgrad,
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
    "ScaleByAdaShiftState",
    "scale_by_adashift",
    "adashift",
    "ScaleByAdaiState",
    "scale_by_adai",
    "adai",
    "ScaleByDiffGradState",
    "scale_by_diffgrad",
    "diffgrad",
]
