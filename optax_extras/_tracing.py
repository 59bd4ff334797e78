"""The momentum recursion, for every transformation that keeps a trace."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras import _numerics, _validation
from optax_extras._validation import ScalarOrSchedule


class TraceWithBiasCorrectionState(NamedTuple):
    """State of `trace_with_bias_correction`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    trace: optax.Updates  # γ-discounted sum of updates; the parameters' shapes
    weight: jax.Array  # w, the trace of a constant 1; float32[] or float64[]


def trace_leaf(
    gradient: Any,
    trace: jax.Array,
    decay: jax.Array,
    gain: jax.Array,
    divisor: jax.Array,
    nesterov: bool,
) -> tuple[jax.Array, jax.Array]:
    """One step of one leaf: (update, new trace), of gradients multiplied by `gain`."""
    dtype = jnp.result_type(gradient)
    compute = _numerics.compute_dtype(dtype, trace.dtype)
    real = _numerics.real_dtype(compute)
    decay, gain, divisor = (x.astype(real) for x in (decay, gain, divisor))

    def step(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
        g = gain * g
        m = g + decay * m
        return (g + decay * m if nesterov else m) / divisor, m

    update, trace_next = _numerics.by_part(
        step, jnp.asarray(gradient).astype(compute), trace.astype(compute)
    )
    return update.astype(dtype), trace_next.astype(trace.dtype)


def accumulate(
    decay: ScalarOrSchedule,
    *,
    gain: ScalarOrSchedule = 1.0,
    nesterov: bool = False,
    bias_correction: bool = False,
    accumulator_dtype: Any = None,
    start: Callable[[Any], Any] = lambda zeros: zeros,
) -> optax.GradientTransformationExtraArgs:
    """The trace m = gain·g + decay·m of checked arguments.

    `gain` multiplies the gradient in the dtype of the arithmetic, and `start` makes the
    initial trace from one of zeros.
    """

    def init(params: optax.Params) -> TraceWithBiasCorrectionState:
        _validation.inexact_leaves("params", params)
        return TraceWithBiasCorrectionState(
            count=jnp.zeros((), jnp.int32),
            trace=start(_numerics.zeros_like(params, accumulator_dtype)),
            weight=jnp.zeros((), _numerics.statistic_dtype(params)),
        )

    def update(
        updates: optax.Updates,
        state: TraceWithBiasCorrectionState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TraceWithBiasCorrectionState]:
        del params, extra_args
        _validation.gradients(updates, state.trace)
        dtype = state.weight.dtype
        gamma = _numerics.evaluate(decay, state.count, dtype)
        factor = _numerics.evaluate(gain, state.count, dtype)
        weight = 1 + gamma * state.weight
        emitted_weight = 1 + gamma * weight if nesterov else weight
        divisor = jnp.ones((), dtype)
        if bias_correction:
            divisor = emitted_weight * (1 - gamma)
        updates, trace = _numerics.map_with_buffers(
            lambda g, m: trace_leaf(g, m, gamma, factor, divisor, nesterov),
            updates,
            [state.trace],
        )
        count = optax.safe_increment(state.count)
        return updates, TraceWithBiasCorrectionState(count, trace, weight)

    return optax.GradientTransformationExtraArgs(init, update)
