"""Aggregated momentum (Lucas et al. 2018, arXiv 1804.00325)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars, stages, trace
from optax_extras.typing import DTypeLike, ScalarOrSchedule


class ScaleByAggregatedMomentumState(NamedTuple):
    """State of `scale_by_aggregated_momentum` and of `aggmo`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    # A β-discounted sum of updates for each β but plain zeros; the parameters' shapes.
    traces: tuple[optax.Updates, ...]


def scale_by_aggregated_momentum(
    decays: Sequence[ScalarOrSchedule] | jax.Array = (0.0, 0.9, 0.99),
    *,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Averages momentum traces of several decays (AggMo).

    Use it where the best momentum is not known. Directions in which the traces with
    large decays overshoot are damped by those with small ones, which have turned
    already. On quadratics with condition numbers of 100, 1000 and 10 000, each method
    at its best learning rate, it was far ahead of momentum of 0.99, which oscillates;
    it was ahead of 0.9 for 10 000, and behind it for the others, where 0.9 is enough.
    It takes one copy of the parameters for each decay that is not 0.

    With :math:`\beta_i` = ``decays[i]``, i = 1, …, K, and traces initially zero:

    .. math::

        v_{i,t} = \beta_{i,t} v_{i,t-1} + g_t, \qquad
        u_t = \frac{1}{K} \sum_i v_{i,t}

    One decay is plain momentum, `optax.trace`. The paper chooses the decays as
    :math:`\beta_i = 1 - a^{i - 1}`: ``[1 - 0.1**i for i in range(3)]`` is the default,
    and a fourth is 0.999. The gain of a constant gradient is the mean of the
    :math:`1 / (1 - \beta_i)`, which is 37 with the default, where that of momentum of
    0.9 is 10.

    *Differences from the source*: the trace of a decay of 0 is the gradient itself, so
    a 0 among the numbers takes no memory. The paper's PyTorch code keeps its traces by
    the value of the decay, and advances the one trace of two equal decays twice.

    Args:
      decays: β, K of them in [0, 1): a sequence of numbers, 0-d arrays or schedules, or
        an array of shape (K,).
      accumulator_dtype: real dtype of the traces; by default each parameter's. In half
        precision, updates come from the traces as they are stored.

    Returns:
      A gradient transformation. Its state is one copy of the parameters for each decay
      that is not a plain 0, and 4 bytes.

    Raises:
      ValueError: there are no decays, or a number is out of its range; at ``update``,
        the gradients do not have the structure and shapes of the parameters.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax.chain(
      ...     optax_extras.scale_by_aggregated_momentum([0.0, 0.9, 0.99]),
      ...     optax.scale_by_learning_rate(0.05),
      ... )
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Lucas et al. 2018, "Aggregated Momentum: Stability Through Passive Damping", arXiv
      1804.00325
    """
    betas = _checked(decays)
    accumulator_dtype = checks.floating_dtype("accumulator_dtype", accumulator_dtype)
    kept = [beta for beta in betas if not checks.is_zero(beta)] or betas[:1]
    dropped = len(betas) - len(kept)

    def init(params: optax.Params) -> ScaleByAggregatedMomentumState:
        checks.check_inexact("params", params)
        return ScaleByAggregatedMomentumState(
            count=jnp.zeros((), jnp.int32),
            traces=tuple(leaves.zeros_like(params, accumulator_dtype) for _ in kept),
        )

    def update(
        updates: optax.Updates,
        state: ScaleByAggregatedMomentumState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByAggregatedMomentumState]:
        del params, extra_args
        checks.check_gradients(updates, state.traces[0])
        dtype = dtypes.statistic_dtype(state.traces)
        coefficients = [
            trace.Coefficients(
                decay=scalars.evaluate(beta, state.count, dtype),
                gain=jnp.ones((), dtype),
                direct=None,
                carried=jnp.full((), 1 / len(betas), dtype),
            )
            for beta in kept
        ]
        if dropped:
            share = jnp.full((), dropped / len(betas), dtype)
            coefficients[0] = coefficients[0]._replace(direct=share)
        updates, *traces = leaves.map_with_buffers(
            lambda g, *old: trace.advance_all(g, old, coefficients),
            updates,
            state.traces,
        )
        count = optax.safe_increment(state.count)
        return updates, ScaleByAggregatedMomentumState(count, tuple(traces))

    return optax.GradientTransformationExtraArgs(init, update)


def aggmo(
    learning_rate: ScalarOrSchedule,
    decays: Sequence[ScalarOrSchedule] | jax.Array = (0.0, 0.9, 0.99),
    *,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with aggregated momentum (AggMo).

    A chain of `scale_by_aggregated_momentum` and the learning rate:
    :math:`\theta_{t+1} = \theta_t - \frac{\eta_t}{K} \sum_i v_{i,t}`. The documentation
    of the former has the equations, and says when to use the method.

    Args:
      learning_rate: :math:`\eta`, at least 0; a number, a 0-d array or a schedule.
      decays: β, K of them in [0, 1): a sequence of numbers, 0-d arrays or schedules, or
        an array of shape (K,).
      accumulator_dtype: real dtype of the traces; by default each parameter's.

    Returns:
      A gradient transformation that contains the learning rate.

    Raises:
      ValueError: there are no decays, or a number is out of its range.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax_extras.aggmo(0.05)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Lucas et al. 2018, "Aggregated Momentum: Stability Through Passive Damping", arXiv
      1804.00325
    """
    direction = scale_by_aggregated_momentum(
        decays, accumulator_dtype=accumulator_dtype
    )
    return optax.chain(direction, stages.scale_by_learning_rate(learning_rate))


def _checked(decays: Any) -> list[Any]:
    """The decays, each of them checked."""
    is_vector = getattr(decays, "ndim", None) == 1
    if not (is_vector or isinstance(decays, (list, tuple))):
        raise TypeError(
            f"`decays` must be a sequence of numbers or schedules, got {decays!r}"
        )
    if not len(decays):
        raise ValueError(f"`decays` must have at least one number, got {decays!r}")
    return [
        checks.decay(f"decays[{i}]", beta, schedule=True)
        for i, beta in enumerate(decays)
    ]
