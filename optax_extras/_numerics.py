"""Shared arithmetic: dtypes to compute in, debiasing, and maps over trees."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras._validation import Scalar, ScalarOrSchedule, Schedule


def compute_dtype(dtype: Any) -> Any:
    """The dtype to do arithmetic in: at least float32, complex when `dtype` is."""
    return jnp.promote_types(dtype, jnp.float32)


def real_dtype(dtype: Any) -> Any:
    """The real counterpart of a floating-point or complex dtype."""
    return np.zeros((), dtype).real.dtype


def buffer_dtype(leaf: Any, dtype: Any) -> Any:
    """A buffer's dtype: the leaf's, or `dtype` where given, complex for complex."""
    own = jnp.result_type(leaf)
    if dtype is None:
        return own
    if jnp.issubdtype(own, jnp.complexfloating):
        return jnp.promote_types(dtype, jnp.complex64)
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


def as_rate(learning_rate: ScalarOrSchedule) -> ScalarOrSchedule:
    """A learning rate in the form in which optax keeps the updates' dtype.

    `optax.scale` multiplies by an array as it is, which widens bfloat16 updates and
    fails under strict promotion; a schedule's value it casts first.
    """
    if not isinstance(learning_rate, (jax.Array, np.ndarray)):
        return learning_rate
    rate = learning_rate
    schedule: Schedule = lambda count: rate  # noqa: E731
    return schedule


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


def add_scaled(x: Any, scale: jax.Array, y: jax.Array) -> jax.Array:
    """Computes x + scale·y in x's dtype, rounded once; scale is real and 0-d."""
    dtype = jnp.result_type(x)
    compute = compute_dtype(dtype)
    scale = scale.astype(real_dtype(compute))
    return (jnp.asarray(x).astype(compute) + scale * y.astype(compute)).astype(dtype)


def squared_magnitude(x: jax.Array) -> jax.Array:
    """|x|² per element, real."""
    if jnp.iscomplexobj(x):
        return x.real**2 + x.imag**2
    return x**2


def map_with_buffers(
    function: Callable[..., tuple[Any, ...]], updates: Any, *buffers: Any
) -> tuple[Any, ...]:
    """Maps `(gradient, *buffers) -> (update, *new buffers)` over the leaves.

    A None gradient stays None and leaves its buffers as they are.
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(updates, is_leaf=lambda node: node is None)
    columns = [treedef.flatten_up_to(tree) for tree in buffers]
    rows = [
        row if row[0] is None else function(*row)
        for row in zip(leaves, *columns, strict=True)
    ]
    if not rows:
        return (updates, *buffers)
    return tuple(treedef.unflatten(column) for column in zip(*rows, strict=True))
