"""Maps over the leaves of trees, and the arithmetic of one leaf.

A None gradient marks a leaf that has no gradient: its update is None and its buffers
do not change.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras._core.dtypes import buffer_dtype, compute_dtype, real_dtype


def is_none(node: Any) -> bool:
    """Whether a node is None; an `is_leaf` for functions of trees."""
    return node is None


def map_gradients(function: Callable[..., Any], updates: Any, *rest: Any) -> Any:
    """Maps `(gradient, *others) -> update` over leaves; None stays None."""
    return jax.tree.map(
        lambda g, *others: None if g is None else function(g, *others),
        updates,
        *rest,
        is_leaf=is_none,
    )


def map_with_buffers(
    function: Callable[..., tuple[Any, ...]],
    updates: Any,
    buffers: Sequence[Any],
    statistics: Sequence[Any] = (),
) -> tuple[Any, ...]:
    """Maps `(gradient, *buffers, *statistics)` to `(update, *new buffers)` by leaf."""
    treedef: Any
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    columns = [treedef.flatten_up_to(tree) for tree in (*buffers, *statistics)]
    rows = [
        row[: 1 + len(buffers)] if row[0] is None else function(*row)
        for row in zip(leaves, *columns, strict=True)
    ]
    if not rows:
        return (updates, *buffers)
    return tuple(treedef.unflatten(column) for column in zip(*rows, strict=True))


def fill(updates: Any, others: Any) -> Any:
    """Replaces each None leaf of `updates` by the leaf of `others`."""
    return jax.tree.map(
        lambda g, other: other if g is None else g, updates, others, is_leaf=is_none
    )


def chosen(flag: jax.Array, new: Any, old: Any) -> Any:
    """The leaves of `new` where a flag holds, bool[], and else those of `old`."""
    return jax.tree.map(lambda x, y: jnp.where(flag, x, y), new, old)


def no_update(updates: Any) -> Any:
    """Updates that change no parameter, not even the sign of a zero: −0."""
    return jax.tree.map(lambda u: -jnp.zeros_like(u), updates)


def zeros_like(params: Any, dtype: Any = None) -> Any:
    """Zeros with the shapes and shardings of `params`, in `buffer_dtype`."""
    return jax.tree.map(
        lambda p: jnp.zeros_like(p, dtype=buffer_dtype(p, dtype)), params
    )


def real_zeros_like(params: Any) -> Any:
    """Zeros with the shapes of `params`, real, in float32 or wider."""
    return jax.tree.map(
        lambda p: jnp.zeros_like(
            p, dtype=real_dtype(compute_dtype(jnp.result_type(p)))
        ),
        params,
    )


def by_part(function: Callable[..., Any], *arrays: jax.Array) -> Any:
    """Applies a linear function with real factors to real or complex arrays.

    The real and the imaginary part are mapped separately: a complex product contains
    0·inf, which is NaN, when an element is infinite.
    """
    if not jnp.iscomplexobj(arrays[0]):
        return function(*arrays)
    real = function(*(x.real for x in arrays))
    imaginary = function(*(x.imag for x in arrays))
    return jax.tree.map(jax.lax.complex, real, imaginary)


def scaled(x: Any, scale: jax.Array) -> jax.Array:
    """Returns scale·x in x's dtype, rounded once; `scale` is real and 0-d."""
    dtype = jnp.result_type(x)
    compute = compute_dtype(dtype)
    scale = scale.astype(real_dtype(compute))
    product: jax.Array = by_part(lambda x: scale * x, jnp.asarray(x).astype(compute))
    return product.astype(dtype)


def add_scaled(x: Any, *terms: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Adds scale·y to x for each (scale, y), in x's dtype, rounded once.

    Every scale is real and 0-d.
    """
    dtype = jnp.result_type(x)
    compute = compute_dtype(dtype)
    scales = [scale.astype(real_dtype(compute)) for scale, _ in terms]

    def add(x: jax.Array, *ys: jax.Array) -> jax.Array:
        for scale, y in zip(scales, ys, strict=True):
            x = x + scale * y
        return x

    total: jax.Array = by_part(
        add,
        jnp.asarray(x).astype(compute),
        *(jnp.asarray(y).astype(compute) for _, y in terms),
    )
    return total.astype(dtype)


def squared_magnitude(x: jax.Array) -> jax.Array:
    """|x|² per element, real."""
    if jnp.iscomplexobj(x):
        return x.real**2 + x.imag**2
    return x**2


def below_infinity(square: jax.Array) -> jax.Array:
    """Clips a square below infinity, from which an average would never recover."""
    return jnp.minimum(square, np.finfo(square.dtype).max / 4)
