"""Schedules for the learning rate."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from optax_extras._core import checks, scalars
from optax_extras.typing import Scalar, Schedule


def inverse_time_decay(
    init_value: Scalar,
    decay_rate: Scalar,
    transition_steps: int | jax.typing.ArrayLike = 1,
    staircase: bool = False,
) -> Schedule:
    r"""Decays the learning rate with the inverse of time.

    With :math:`\eta_0` = ``init_value``, k = ``decay_rate``, T = ``transition_steps``
    and t = 0 at the first step:

    .. math::

        \eta_t = \frac{\eta_0}{1 + k\, t / T}

    The sum of the rates diverges and the sum of their squares converges: Robbins and
    Monro's condition for stochastic descent to converge. The decay is slow: to divide
    the rate by n takes (n − 1) T / k steps.

    Args:
      init_value: the rate at t = 0, at least 0.
      decay_rate: k, at least 0; after T / k steps the rate is halved.
      transition_steps: T, a positive integer.
      staircase: whether t / T is rounded down, so that the rate falls every T steps.

    Returns:
      A schedule: a function of the count, float32[] (float64 under x64).

    Raises:
      ValueError: an argument is out of its range.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import optax_extras
      >>> schedule = optax_extras.inverse_time_decay(0.1, decay_rate=0.5)
      >>> [round(float(schedule(t)), 4) for t in (0, 2, 18)]
      [0.1, 0.05, 0.01]

    References:
      Robbins & Monro 1951, "A Stochastic Approximation Method"
    """
    init_value = checks.nonnegative("init_value", init_value)
    decay_rate = checks.nonnegative("decay_rate", decay_rate)
    transition_steps = checks.positive_integer("transition_steps", transition_steps)
    staircase = checks.flag("staircase", staircase)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        dtype = jnp.result_type(float)
        if staircase:
            steps = jnp.asarray(count)
            length = scalars.scalar(transition_steps, steps.dtype)
            periods = (steps // length).astype(dtype)
        else:
            periods = scalars.scalar(count, dtype) / scalars.scalar(
                transition_steps, dtype
            )
        rate = scalars.scalar(decay_rate, dtype)
        return scalars.scalar(init_value, dtype) / (1 + rate * periods)

    return schedule
