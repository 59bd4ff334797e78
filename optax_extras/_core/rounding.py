"""Rounding to the nearest, or at random, up with a probability of the part above.

The mean of what is rounded at random is right.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_SIGN = np.uint32(0x80000000)
_INFINITY = np.uint32(0x7F800000)
_LARGEST = np.uint32(0x7F7F0000)  # finite number of bfloat16
# Numbers this close to an integer are rounded to it: what a code stands for then has
# that code, whatever the error of float32.
_NEAR = 2.0**-15


def to_bfloat16(x: jax.Array, words: jax.Array | None) -> jax.Array:
    """Rounds float32 numbers to bfloat16.

    Args:
      x: float32.
      words: random words to round with, uint32; None rounds to the nearest.
    """
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    magnitude = bits & ~_SIGN
    if words is None:  # of two that are equally near, the even one
        added = np.uint32(0x7FFF) + (magnitude >> np.uint32(16) & np.uint32(1))
    else:
        added = words >> np.uint32(16)
    finite = jnp.minimum(magnitude + added, _LARGEST)
    # A NaN may have no bit set in its upper half.
    other = jnp.where(magnitude > _INFINITY, magnitude | np.uint32(0x400000), magnitude)
    magnitude = jnp.where(magnitude < _INFINITY, finite, other)
    upper = (magnitude | bits & _SIGN) >> np.uint32(16)
    return lax.bitcast_convert_type(upper.astype(jnp.uint16), jnp.bfloat16)


def rounded(x: jax.Array, words: jax.Array | None) -> jax.Array:
    """Rounds nonnegative float32 numbers to integers.

    Args:
      x: float32.
      words: random words to round with, uint32; None rounds to the nearest.
    """
    low = jnp.floor(x)
    whole: jax.Array = low + is_above(x - low, words)
    return whole


def is_above(
    part: jax.Array, words: jax.Array | None, nearest: jax.Array | None = None
) -> jax.Array:
    """Whether a number is rounded up, 0 or 1.

    Args:
      part: how far it is from the number below to that above, in [0, 1]; float32.
      words: random words to decide with, uint32; None rounds to the nearest.
      nearest: 1 where to round to the nearest all the same, 0 elsewhere; float32.
    """
    uniform: Any = np.float32(0.5)
    if words is not None:
        uniform = (words >> np.uint32(8)).astype(jnp.int32).astype(jnp.float32)
        uniform = uniform * np.float32(2**-24 * (1 - 2 * _NEAR)) + np.float32(_NEAR)
        if nearest is not None:
            # Not by a comparison, which XLA:CPU would write to memory.
            uniform = uniform + nearest * (np.float32(0.5) - uniform)
    above: jax.Array = (part > uniform).astype(jnp.float32)
    return above
