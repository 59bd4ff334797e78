"""The last stages of a chain: weight decay and the learning rate."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras import _numerics, _validation
from optax_extras._validation import Scalar, ScalarOrSchedule


def descent(learning_rate: ScalarOrSchedule) -> ScalarOrSchedule:
    """The factor of a descent step: minus the learning rate, which is checked."""
    if callable(learning_rate):
        return lambda count: -jnp.asarray(learning_rate(count))
    checked: Any = _validation.nonnegative("learning_rate", learning_rate)
    return -checked  # type: ignore[no-any-return]


def add_decayed_weights(
    weight_decay: Scalar, mask: Any
) -> optax.GradientTransformationExtraArgs:
    """Adds `weight_decay`·params to the updates, in each leaf's own dtype.

    It needs no parameters when the weight is known to be 0; `optax.add_decayed_weights`
    does, widens bfloat16 updates where the weight is an array, and fails there under
    strict promotion.
    """
    weight = _validation.nonnegative("weight_decay", weight_decay)

    def add(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        if _validation.is_zero(weight):
            return updates
        if params is None:
            raise ValueError("`params` must be given to `update` for `weight_decay`")
        scale = _numerics.scalar(weight, _numerics.statistic_dtype(updates))
        return jax.tree.map(
            lambda g, p: None if g is None else _numerics.add_scaled(g, (scale, p)),
            updates,
            params,
            is_leaf=_validation.is_none,
        )

    stage = optax.with_extra_args_support(optax.stateless(add))
    return stage if mask is None else optax.masked(stage, mask)


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by −`learning_rate`, in each leaf's own dtype.

    `optax.scale_by_learning_rate` widens bfloat16 updates where the rate is an array,
    and fails there under strict promotion.
    """
    factor = descent(learning_rate)

    def init(params: optax.Params) -> optax.OptState:
        del params
        if callable(factor):
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
        if callable(factor):
            scale = _numerics.scalar(factor(state.count), dtype)
            state = optax.ScaleByScheduleState(optax.safe_increment(state.count))
        else:
            scale = _numerics.scalar(factor, dtype)
        return jax.tree.map(lambda g: _numerics.scaled(g, scale), updates), state

    return optax.GradientTransformationExtraArgs(init, update)
