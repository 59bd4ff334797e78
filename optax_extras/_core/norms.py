"""Norms of trees, in shards too."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optax_extras._core import dtypes, leaves
from optax_extras._core.axes import may_vary, varying


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


def inner_product(tree: Any, other: Any) -> jax.Array:
    """The sum of all products; float32[], or float64[] with float64 leaves.

    Inside `jax.shard_map`, products that vary over an axis are summed along it, be they
    of shards or of each worker's own arrays. With ``check_vma=False``, all products are
    summed along all axes.

    Args:
      tree: floating-point or complex arrays. Complex ones count as pairs of real ones.
      other: arrays in their shapes. None in either tree counts as zeros.
    """
    dtype = dtypes.statistic_dtype((tree, other))
    parts = [jnp.zeros((), dtype)]

    def add(x: Any, y: Any) -> None:
        if x is None or y is None:
            return
        compute = dtypes.compute_dtype(jnp.result_type(x), jnp.result_type(y))
        x, y = (jnp.asarray(z).astype(compute) for z in (x, y))
        if jnp.iscomplexobj(x):
            total = jnp.sum(x.real * y.real + x.imag * y.imag)
        else:
            total = jnp.sum(x * y)
        axes = tuple(sorted(may_vary(total), key=str))
        parts.append((lax.psum(total, axes) if axes else total).astype(dtype))

    jax.tree.map(add, tree, other, is_leaf=leaves.is_none)
    return sum(parts[1:], parts[0])
