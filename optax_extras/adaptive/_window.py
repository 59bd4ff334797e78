"""The last gradients of a leaf, in one array that is written in place."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optax_extras._core import dtypes, leaves


def empty(param: Any, n: int, dtype: Any) -> jax.Array:
    """Zeros for n gradients, sharded as the parameter behind the axis of the window."""
    zeros = jnp.zeros_like(param, dtype=dtypes.buffer_dtype(param, dtype))
    window: jax.Array = jnp.broadcast_to(zeros, (n, *zeros.shape))
    return window


def shapes(windows: Any) -> Any:
    """What the windows of a tree hold, for checks of gradients."""
    return jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape[1:], w.dtype), windows)


def weights(decay: jax.Array, n: int, newest: jax.Array) -> list[jax.Array]:
    """Of each place, decayⁱ over their sum, i steps behind the newest gradient's."""
    first = jnp.ones((1,), decay.dtype)
    powers = jnp.cumprod(jnp.concatenate([first, jnp.full(n - 1, decay)]))
    age = (newest - jnp.arange(n, dtype=jnp.int32)) % n
    return list((powers / jnp.sum(powers))[age])


def at(window: jax.Array, place: jax.Array) -> jax.Array:
    """The gradient at a place."""
    gradient: jax.Array = lax.dynamic_index_in_dim(window, place, 0, keepdims=False)
    return gradient


def put(window: jax.Array, place: jax.Array, gradient: jax.Array) -> jax.Array:
    """The window with another gradient at a place."""
    kept = gradient.astype(window.dtype)
    written: jax.Array = lax.dynamic_update_index_in_dim(window, kept, place, 0)
    return written


def mean(window: jax.Array, weights: Sequence[jax.Array], dtype: Any) -> jax.Array:
    """The weighted sum of its gradients, computed in a dtype."""
    real = dtypes.real_dtype(dtype)

    def total(*gradients: jax.Array) -> jax.Array:
        weighted = (w.astype(real) * g for w, g in zip(weights, gradients, strict=True))
        return functools.reduce(jnp.add, weighted)

    # One after another: a reduction along the axis takes a hundred times as long.
    kept = [lax.index_in_dim(window, i, 0, keepdims=False) for i in range(len(window))]
    summed: jax.Array = leaves.by_part(total, *(g.astype(dtype) for g in kept))
    return summed
