"""Shared arithmetic: dtypes to compute in, debiasing, and maps over trees."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras import _validation
from optax_extras._validation import Scalar, ScalarOrSchedule


def compute_dtype(*dtypes: Any) -> Any:
    """The dtype to do arithmetic in: float32 or wider, complex if one of them is."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes, jnp.float32)


def real_dtype(dtype: Any) -> Any:
    """The real counterpart of a floating-point or complex dtype."""
    return np.zeros((), dtype).real.dtype


def buffer_dtype(leaf: Any, dtype: Any) -> Any:
    """A buffer's dtype: the leaf's, or `dtype` where given, complex for complex."""
    own = jnp.result_type(leaf)
    if dtype is None:
        return own
    if jnp.issubdtype(own, jnp.complexfloating):
        return compute_dtype(dtype, jnp.complex64)
    return dtype


def statistic_dtype(tree: Any) -> Any:
    """The dtype of scalar statistics: float32, or float64 if any leaf has it."""
    dtypes = [real_dtype(jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.dtype(jnp.float64 if jnp.float64 in dtypes else jnp.float32)


def scalar(value: Scalar, dtype: Any) -> jax.Array:
    """A hyperparameter as a 0-d array of `dtype`, by an explicit cast."""
    return jnp.asarray(value).astype(dtype)


def evaluate(value: ScalarOrSchedule, count: jax.Array, dtype: Any) -> jax.Array:
    """A hyperparameter at step `count`, as a 0-d array of `dtype`."""
    return scalar(value(count) if callable(value) else value, dtype)


def debiasing_weight(decay: jax.Array, steps: jax.Array) -> jax.Array:
    """1 − decay^steps, without the cancellation of that form for a decay near 1."""
    return -jnp.expm1(steps.astype(decay.dtype) * jnp.log1p(decay - 1))


def zeros_like(params: Any, dtype: Any = None) -> Any:
    """Buffers for `params`: their shapes and sharding, in `buffer_dtype`."""
    return jax.tree.map(
        lambda p: jnp.zeros_like(p, dtype=buffer_dtype(p, dtype)), params
    )


def real_zeros_like(params: Any) -> Any:
    """Real buffers for `params`, in float32 or wider."""
    return jax.tree.map(
        lambda p: jnp.zeros_like(
            p, dtype=real_dtype(compute_dtype(jnp.result_type(p)))
        ),
        params,
    )


def by_part(function: Callable[..., Any], *arrays: jax.Array) -> Any:
    """Applies a linear function with real factors to real arrays or complex ones.

    Multiplying the parts avoids complex products, whose 0·inf is NaN.
    """
    if not jnp.iscomplexobj(arrays[0]):
        return function(*arrays)
    real = function(*(x.real for x in arrays))
    imaginary = function(*(x.imag for x in arrays))
    return jax.tree.map(jax.lax.complex, real, imaginary)


def scaled(x: Any, scale: jax.Array) -> jax.Array:
    """Computes scale·x in x's dtype, rounded once; scale is real and 0-d."""
    dtype = jnp.result_type(x)
    compute = compute_dtype(dtype)
    scale = scale.astype(real_dtype(compute))
    product: jax.Array = by_part(lambda x: scale * x, jnp.asarray(x).astype(compute))
    return product.astype(dtype)


def add_scaled(x: Any, *terms: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Adds scale·y for each (scale, y) to x, in x's dtype, rounded once.

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
        add, jnp.asarray(x).astype(compute), *(y.astype(compute) for _, y in terms)
    )
    return total.astype(dtype)


def squared_magnitude(x: jax.Array) -> jax.Array:
    """|x|² per element, real."""
    if jnp.iscomplexobj(x):
        return x.real**2 + x.imag**2
    return x**2


def map_with_buffers(
    function: Callable[..., tuple[Any, ...]],
    updates: Any,
    buffers: Sequence[Any],
    statistics: Sequence[Any] = (),
) -> tuple[Any, ...]:
    """Maps `(gradient, *buffers, *statistics) -> (update, *new buffers)` over leaves.

    A None gradient stays None and leaves its buffers as they are.
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(updates, is_leaf=_validation.is_none)
    columns = [treedef.flatten_up_to(tree) for tree in (*buffers, *statistics)]
    rows = [
        row[: 1 + len(buffers)] if row[0] is None else function(*row)
        for row in zip(leaves, *columns, strict=True)
    ]
    if not rows:
        return (updates, *buffers)
    return tuple(treedef.unflatten(column) for column in zip(*rows, strict=True))
