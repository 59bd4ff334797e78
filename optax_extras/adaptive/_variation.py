"""The squared change of the gradient between steps, over a choice of scopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import dtypes, leaves
from optax_extras._core.opaque import barrier

SCOPES = ("tree", "leaf", "element")


def zero_statistic(params: optax.Params, scope: str) -> Any:
    """A zero per scope, with the shardings and varying mesh axes of `params`."""
    return _pool(leaves.real_zeros_like(params), scope)


def per_leaf(statistic: Any, scope: str, tree: Any) -> Any:
    """The statistic that belongs to each leaf of `tree`."""
    return jax.tree.map(lambda _: statistic, tree) if scope == "tree" else statistic


def change(
    previous: optax.Updates, updates: optax.Updates, scope: str, normalize: bool
) -> Any:
    """‖g − g'‖² over each scope; divided by ‖g‖² + ‖g'‖² if `normalize`, in [0, 2].

    A None gradient counts as unchanged.
    """
    # Each sum reads the gradients behind barriers of its own. Otherwise XLA writes what
    # it shares with another kernel to memory, converted to float32.
    gradients = jax.tree.map(barrier, (previous, leaves.fill(updates, previous)))

    def pooled(
        squares: Callable[[jax.Array, jax.Array], jax.Array], gradients: Any
    ) -> Any:
        def leaf(old: jax.Array, new: Any) -> jax.Array:
            new = jnp.asarray(new)
            compute = dtypes.compute_dtype(old.dtype, new.dtype)
            return squares(old.astype(compute), new.astype(compute))

        pool = _pool(jax.tree.map(leaf, *gradients), scope)
        return jax.tree.map(leaves.below_infinity, pool)

    squared = leaves.squared_magnitude
    difference = pooled(lambda old, new: squared(new - old), gradients)
    if not normalize:
        return difference
    magnitude = pooled(
        lambda old, new: squared(new) + squared(old), jax.tree.map(barrier, gradients)
    )
    return jax.tree.map(lambda d, m: d / jnp.where(m > 0, m, 1), difference, magnitude)


def _pool(squares: Any, scope: str) -> Any:
    if scope == "element":
        return squares
    sums = jax.tree.map(jnp.sum, squares)
    if scope == "leaf":
        return sums
    dtype = dtypes.statistic_dtype(sums)
    return sum((x.astype(dtype) for x in jax.tree.leaves(sums)), jnp.zeros((), dtype))
