"""The last values of a statistic, newest last."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def length(name: str, value: Any) -> int:
    """Checks the length of a window, which is a shape: a Python int of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(
            f"`{name}` must be an int, got {value!r}; with `optax.inject_hyperparams`,"
            " name it in `static_args`"
        )
    if value < 1:
        raise ValueError(f"`{name}` must be >= 1, got {value}")
    return value


def append(window: jax.Array, x: jax.Array) -> jax.Array:
    """The window with a value more at its end, and the oldest one gone."""
    return jnp.concatenate([window[1:], x[None]])


def ordered(window: jax.Array, filled: jax.Array) -> jax.Array:
    """The values of a window in ascending order, and then large ones where it is empty.

    Args:
      window: float[length].
      filled: how many of its last places hold values; int32[].
    """
    size = window.shape[0]
    empty = np.finfo(window.dtype).max  # finite, so that differences are no NaN
    is_known = jnp.arange(size, dtype=jnp.int32) >= size - filled
    return jnp.sort(jnp.where(is_known, window, empty))


def median(values: jax.Array, filled: jax.Array) -> jax.Array:
    """The median of the first values of an ascending array, at least one of them."""
    low = values[jnp.maximum(filled - 1, 0) // 2]
    high = values[filled // 2]
    return low + (high - low) / 2
