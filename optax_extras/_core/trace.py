"""The momentum recursion, with its coefficients as data."""

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_extras._core import dtypes, leaves


class Coefficients(NamedTuple):
    """Coefficients of m ← decay·m + gain·g, u = (direct·g + carried·m) / divisor.

    Each is 0-d and real. (direct, carried) is (None, 1) for plain momentum, (gain,
    decay) for Nesterov's form and (None, −1) for a velocity that is subtracted. None
    omits a term; a factor of 0 would turn an infinite gradient into NaN.
    """

    decay: jax.Array
    gain: jax.Array
    direct: jax.Array | None
    carried: jax.Array
    divisor: jax.Array | None = None


def advance(gradient: Any, trace: jax.Array, by: Coefficients) -> tuple[Any, Any]:
    """One step of one leaf: (update, new trace), in the dtypes of (gradient, trace)."""
    update, trace = advance_all(gradient, [trace], [by])
    return update, trace


def advance_all(
    gradient: Any, traces: Sequence[jax.Array], by: Sequence[Coefficients]
) -> tuple[Any, ...]:
    """One step of one leaf with several traces: (sum of their updates, *new traces)."""
    dtype = jnp.result_type(gradient)
    compute = dtypes.compute_dtype(dtype, *(trace.dtype for trace in traces))
    real = dtypes.real_dtype(compute)

    def step(g: jax.Array, *old: jax.Array) -> tuple[jax.Array, ...]:
        steps = [
            _step(g, m, jax.tree.map(lambda x: x.astype(real), c), trace.dtype, dtype)
            for m, trace, c in zip(old, traces, by, strict=True)
        ]
        updates, new = zip(*steps, strict=True)
        return (functools.reduce(operator.add, updates), *new)

    update, *new = leaves.by_part(
        step,
        jnp.asarray(gradient).astype(compute),
        *(trace.astype(compute) for trace in traces),
    )
    return (
        update.astype(dtype),
        *(m.astype(trace.dtype) for m, trace in zip(new, traces, strict=True)),
    )


def _step(
    g: jax.Array, m: jax.Array, by: Coefficients, buffer: Any, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """One step of one real trace; `buffer` and `dtype` are those that are stored."""
    m = by.gain * g + by.decay * m
    u = by.carried * dtypes.as_stored(m, buffer, dtype)
    if by.direct is not None:
        u = by.direct * g + u
    if by.divisor is not None:
        u = u / by.divisor
    return u, m
