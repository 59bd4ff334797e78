"""Norms of trees, in shards too."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optax_extras._core import dtypes, leaves
from optax_extras._core.axes import varying


def global_norm(tree: Any, per: Collection[Any] = ()) -> jax.Array:
    """The norm of all leaves together; float32[], or float64[] with float64 leaves.

    Inside `jax.shard_map`, a leaf that varies over an axis is in shards along it, whose
    squares are summed.

    Args:
      tree: floating-point or complex arrays.
      per: axes along which each device has a norm of its own.
    """
    dtype = dtypes.statistic_dtype(tree)
    squares: dict[tuple[Any, ...], jax.Array] = {}
    for leaf in jax.tree.leaves(tree):
        axes = tuple(sorted(varying(leaf) - {*per}, key=str))
        x = jnp.asarray(leaf).astype(dtypes.compute_dtype(jnp.result_type(leaf)))
        total = jnp.sum(leaves.squared_magnitude(x)).astype(dtype)
        squares[axes] = squares.get(axes, jnp.zeros((), dtype)) + total
    parts = [lax.psum(x, axes) if axes else x for axes, x in squares.items()]
    return jnp.sqrt(sum(parts, jnp.zeros((), dtype)))
