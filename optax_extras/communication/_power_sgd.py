"""PowerSGD (Vogels et al. 2019, 1905.13727)."""

import optax

from optax_extras._core import checks, stages
from optax_extras.communication._mean import compressed_mean
from optax_extras.compressors import low_rank
from optax_extras.momentum import trace_with_bias_correction
from optax_extras.typing import AxisName, KeyLike, ScalarOrSchedule


def power_sgd(
    learning_rate: ScalarOrSchedule,
    rank: int = 2,
    momentum: ScalarOrSchedule = 0.9,
    *,
    axis_name: AxisName,
    workers: int,
    key: KeyLike = 0,
) -> optax.GradientTransformationExtraArgs:
    return optax.chain(
        compressed_mean(low_rank(rank, key=key), axis_name, workers=workers),
        trace_with_bias_correction(momentum, bias_correction=False),
        stages.scale_by_learning_rate(learning_rate),
    )
