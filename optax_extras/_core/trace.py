"""The momentum recursion, with its coefficients as data."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_extras._core import dtypes, leaves


class Coefficients(NamedTuple):
    """Coefficients of m ← decay·m + gain·g, u = (direct·gain·g + carried·m) / divisor.

    Each is 0-d and real. (direct, carried) is (None, 1) for plain momentum, (1, decay)
    for Nesterov's form and (None, −1) for a velocity that is subtracted. None omits a
    term; a factor of 0 would turn an infinite gradient into NaN.
    """

    decay: jax.Array
    gain: jax.Array
    direct: jax.Array | None
    carried: jax.Array
    divisor: jax.Array | None = None


def advance(gradient: Any, trace: jax.Array, by: Coefficients) -> tuple[Any, Any]:
    """One step of one leaf: (update, new trace), in the dtypes of (gradient, trace)."""
    dtype = jnp.result_type(gradient)
    compute = dtypes.compute_dtype(dtype, trace.dtype)
    real = dtypes.real_dtype(compute)
    decay, gain, carried = (x.astype(real) for x in (by.decay, by.gain, by.carried))

    def step(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
        g = gain * g
        m = g + decay * m
        u = carried * dtypes.as_stored(m, trace.dtype, dtype)
        if by.direct is not None:
            u = by.direct.astype(real) * g + u
        if by.divisor is not None:
            u = u / by.divisor.astype(real)
        return u, m

    update, trace_next = leaves.by_part(
        step, jnp.asarray(gradient).astype(compute), trace.astype(compute)
    )
    return update.astype(dtype), trace_next.astype(trace.dtype)
