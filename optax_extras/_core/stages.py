"""The last stages of a chain: weight decay and the learning rate."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars
from optax_extras.typing import ScalarOrSchedule


def descent(learning_rate: ScalarOrSchedule) -> ScalarOrSchedule:
    """Checks the learning rate and returns its negative, the factor of the update."""
    if callable(learning_rate):
        return lambda count: -jnp.asarray(learning_rate(count))
    checked: Any = checks.nonnegative("learning_rate", learning_rate)
    return -checked  # type: ignore[no-any-return]


def add_decayed_weights(
    weight_decay: ScalarOrSchedule, mask: Any
) -> optax.GradientTransformationExtraArgs:
    """Adds `weight_decay`·params to the updates, in each leaf's own dtype.

    `params` is not needed if the weight is a Python 0. `optax.add_decayed_weights`
    always needs it; with an array as the weight, it widens bfloat16 updates and fails
    under strict dtype promotion.
    """
    weight = checks.nonnegative("weight_decay", weight_decay, schedule=True)

    def add(
        updates: optax.Updates, scale: jax.Array, params: optax.Params | None
    ) -> optax.Updates:
        if params is None:
            raise ValueError("`params` must be given to `update` with `weight_decay`")
        return leaves.map_gradients(
            lambda g, p: leaves.add_scaled(g, (scale, p)), updates, params
        )

    if checks.is_zero(weight):
        stage = optax.with_extra_args_support(optax.identity())
    else:
        stage = _with_scalar(weight, add)
    return stage if mask is None else optax.masked(stage, mask)


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by −`learning_rate`, in each leaf's own dtype.

    With an array as the rate, `optax.scale_by_learning_rate` widens bfloat16 updates
    and fails under strict dtype promotion.
    """

    def scale(
        updates: optax.Updates, factor: jax.Array, params: optax.Params | None
    ) -> optax.Updates:
        del params
        checks.check_inexact("updates", updates)
        return jax.tree.map(lambda g: leaves.scaled(g, factor), updates)

    return _with_scalar(descent(learning_rate), scale)


def optimizer(
    direction: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule,
    mask: Any,
) -> optax.GradientTransformationExtraArgs:
    """A chain of a direction, decoupled weight decay and the learning rate."""
    return optax.chain(
        direction,
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def _with_scalar(
    value: ScalarOrSchedule, transform: Callable[..., optax.Updates]
) -> optax.GradientTransformationExtraArgs:
    """Applies `transform(updates, value, params)`; counts steps for a schedule."""

    def init(params: optax.Params) -> optax.OptState:
        del params
        if callable(value):
            return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))
        return optax.EmptyState()

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del extra_args
        dtype = dtypes.statistic_dtype(updates)
        if callable(value):
            current = scalars.evaluate(value, state.count, dtype)
            state = optax.ScaleByScheduleState(optax.safe_increment(state.count))
        else:
            current = scalars.scalar(value, dtype)
        return transform(updates, current, params), state

    return optax.GradientTransformationExtraArgs(init, update)
