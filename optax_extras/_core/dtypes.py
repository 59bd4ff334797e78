"""The dtypes of arithmetic, of buffers and of statistics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def compute_dtype(*dtypes: Any) -> Any:
    """The dtype of arithmetic: float32 or wider, complex if any of `dtypes` is."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes, jnp.float32)


def real_dtype(dtype: Any) -> Any:
    """The real counterpart of a floating-point or complex dtype."""
    return np.zeros((), dtype).real.dtype


def buffer_dtype(leaf: Any, dtype: Any) -> Any:
    """The dtype of a leaf's buffer: `dtype`, made complex for a complex leaf.

    None means the leaf's own dtype.
    """
    own = jnp.result_type(leaf)
    if dtype is None:
        return own
    if jnp.issubdtype(own, jnp.complexfloating):
        return compute_dtype(dtype, jnp.complex64)
    return dtype


def as_stored(x: jax.Array, buffer: Any, update: Any) -> jax.Array:
    """Rounds `x` as its half-precision buffer does, if the update has that dtype too.

    XLA then computes the update from what it has just written to the buffer. From the
    wider value, it computes both from the old buffer, and copies that one first.
    """
    half = buffer == update and jnp.dtype(buffer).itemsize < 4
    return x.astype(buffer).astype(x.dtype) if half else x


def statistic_dtype(tree: Any) -> Any:
    """The dtype of scalar statistics: float64 if any leaf has it, else float32."""
    dtypes = [real_dtype(jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.dtype(jnp.float64 if jnp.float64 in dtypes else jnp.float32)
