"""The learning rate's place in a chain."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras import _numerics, _validation
from optax_extras._validation import ScalarOrSchedule


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by −`learning_rate`, in each leaf's own dtype.

    `optax.scale_by_learning_rate` widens bfloat16 updates where the rate is an array,
    and fails there under strict promotion.
    """
    rate = _validation.or_schedule(
        _validation.nonnegative, "learning_rate", learning_rate
    )
    scheduled = callable(rate)

    def init(params: optax.Params) -> optax.OptState:
        del params
        if scheduled:
            return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))
        return optax.EmptyState()

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del params, extra_args
        _validation.inexact_leaves("updates", updates)
        dtype = _numerics.statistic_dtype(updates)
        if scheduled:
            step = _numerics.evaluate(rate, state.count, dtype)
            state = optax.ScaleByScheduleState(optax.safe_increment(state.count))
        else:
            step = _numerics.scalar(rate, dtype)
        return jax.tree.map(lambda g: _numerics.scaled(g, -step), updates), state

    return optax.GradientTransformationExtraArgs(init, update)
