"""The schedule of decaying momentum, Demon (Chen et al. 2019, arXiv 1910.04952)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from optax_extras._core import checks, scalars
from optax_extras.typing import Scalar, Schedule


def demon(init_value: Scalar, decay_steps: int | jax.typing.ArrayLike) -> Schedule:
    r"""Decays momentum to 0, slowly at first (Demon).

    Use it as the momentum of `momentum_sgd` or `qhm`, or as ``b1`` of `qhadam`, in a
    run of known length. The debiasing of `optax.adam` is wrong where b1 varies; that of
    `qhadam`, which is Adam with ``nu1=1``, is exact. To start the decay later, put a
    constant before it with `optax.join_schedules`.

    With :math:`\beta_0` = ``init_value``, T = ``decay_steps`` and t = 0 at the first
    step:

    .. math::

        \beta_t = \beta_0 \frac{r}{(1 - \beta_0) + \beta_0 r}, \qquad
        r = \max\left(1 - \frac{t}{T},\ 0\right)

    A gradient contributes :math:`\beta / (1 - \beta)` times itself to later steps; this
    sum falls linearly, from that of :math:`\beta_0` to 0. So the momentum stays high
    for long: from 0.9, it is 0.82 in the middle and 0.47 when a tenth of the steps
    remains.

    *Differences from the source*: after T steps the momentum stays at 0. The paper's
    formula becomes negative there.

    Args:
      init_value: :math:`\beta_0` in [0, 1).
      decay_steps: T, a positive integer.

    Returns:
      A schedule: a function of the count, float32[] (float64 under x64).

    Raises:
      ValueError: an argument is out of its range.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import optax_extras
      >>> schedule = optax_extras.demon(0.9, decay_steps=100)
      >>> [round(float(schedule(t)), 4) for t in (0, 50, 90, 100, 1000)]
      [0.9, 0.8182, 0.4737, 0.0, 0.0]

    References:
      Chen et al. 2019, "Demon: Improved Neural Network Training with Momentum Decay",
      arXiv 1910.04952
    """
    init_value = checks.decay("init_value", init_value)
    decay_steps = checks.positive_integer("decay_steps", decay_steps)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        dtype = jnp.result_type(float)
        steps = jnp.asarray(count)
        length = scalars.scalar(decay_steps, steps.dtype)
        # In integers: near the end, the difference would cancel in floating point.
        left = (length - jnp.minimum(steps, length)).astype(dtype)
        ratio = left / length.astype(dtype)
        start = scalars.scalar(init_value, dtype)
        return start * ratio / ((1 - start) + start * ratio)

    return schedule
