"""Schedules for the decay of momentum."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from optax_extras._core import checks, scalars
from optax_extras.typing import Scalar, Schedule


def sutskever_momentum(
    max_value: Scalar = 0.99, steps_per_stage: int | jax.typing.ArrayLike = 250
) -> Schedule:
    r"""Raises momentum in stages from 0.5 to a maximum.

    With :math:`\mu_{\max}` = ``max_value`` and T = ``steps_per_stage``, t = 0 at the
    first step:

    .. math::

        \mu_t = \min\left(1 - 2^{-1 - \log_2(\lfloor t / T \rfloor + 1)},
            \mu_{\max}\right)

    which is 1/2, 3/4, 5/6, … in successive stages. Use it as the momentum of
    `momentum_sgd` or `nesterov_lookahead`. The paper lowers the momentum again at the
    end of training.

    Args:
      max_value: the largest momentum, in [0, 1). The paper uses 0, 0.9, 0.99, 0.995 and
        0.999.
      steps_per_stage: T, a positive integer.

    Returns:
      A schedule: a function of the count, float32[] (float64 under x64).

    Raises:
      ValueError: an argument is out of its range.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import optax_extras
      >>> schedule = optax_extras.sutskever_momentum(0.9, steps_per_stage=10)
      >>> [round(float(schedule(t)), 4) for t in (0, 9, 10, 20, 1000)]
      [0.5, 0.5, 0.75, 0.8333, 0.9]

    References:
      Sutskever et al. 2013, "On the importance of initialization and momentum in deep
      learning", ICML
    """
    max_value = checks.decay("max_value", max_value)
    steps_per_stage = checks.positive_integer("steps_per_stage", steps_per_stage)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        dtype = jnp.result_type(float)
        steps = jnp.asarray(count)
        stage = (steps // scalars.scalar(steps_per_stage, steps.dtype)).astype(dtype)
        # 0.5 / (stage + 1) is 2^(−1 − log2(stage + 1)) without rounding a logarithm.
        return jnp.minimum(1 - 0.5 / (stage + 1), scalars.scalar(max_value, dtype))

    return schedule
