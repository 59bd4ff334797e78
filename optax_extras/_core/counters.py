"""Random words of elements, as functions of counters.

The words of an element are a pure function of the key, the step, the path of its leaf
and its global index in the leaf. They therefore do not depend on the device mesh, on
the other leaves, on jit, or on a restart.

Those of a leaf, and those of noise, are Threefry-2x32 with 20 rounds (Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optax_extras._core import slices
from optax_extras._core.opaque import barrier

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def leaf_words(
    words: jax.Array, step: jax.Array, of_leaves: Sequence[Any], like: Any, stream: str
) -> jax.Array:
    """The two words of each leaf at a step, uint32[leaves, 2].

    Args:
      words: uint32[2] from `gaussian.key_words`.
      step: int32[].
      of_leaves: the paths of leaves.
      like: one of them. Inside of `slices`, it or `step` must be the slice's own.
      stream: a name for the purpose; words of one key differ between streams.
    """
    high, low = slices.path_words(stream, of_leaves, (step, like))
    step_words = threefry2x32(words, np.uint32(0), step.astype(jnp.uint32))
    # Without the barrier XLA copies this chain into the loop of every leaf.
    stacked: jax.Array = barrier(jnp.stack(threefry2x32(step_words, high, low), axis=1))
    return stacked


def hashed_words(
    words: jax.Array, shape: tuple[int, ...], sharding: Any = None
) -> jax.Array:
    """A random word of every element, from few instructions, to decide on roundings.

    It is the integer hash `lowbias32` of Wellons, with a word of the leaf before each
    of its two multiplications. Noise needs better bits.

    Args:
      words: those of the leaf, uint32[2].
      shape: of the leaf.
      sharding: that of the leaf on an explicit mesh; otherwise None.

    Returns:
      uint32 words in the shape.
    """
    high, low = element_index(shape, sharding)
    x = low + high * np.uint32(0x9E3779B9) + words[0]
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = ((x ^ (x >> np.uint32(15))) + words[1]) * np.uint32(0x846CA68B)
    hashed: jax.Array = x ^ (x >> np.uint32(16))
    return hashed


def element_index(shape: tuple[int, ...], sharding: Any = None) -> tuple[Any, Any]:
    """The row-major index of every element, as the high and low word of a uint64.

    Args:
      shape: of the leaf.
      sharding: that of the leaf on an explicit mesh; otherwise None.
    """
    if math.prod(shape) <= 2**32:
        low = _row_major(shape, sharding, np.uint32)
        # LLVM in jaxlib 0.12 follows all uses of a narrowed index through Threefry,
        # which takes exponential time. A maximum with an unknown 0 stops that search.
        return np.uint32(0), jnp.maximum(low, barrier(np.uint32(0)))
    with jax.enable_x64(True):
        index = _row_major(shape, sharding, np.uint64)
        return (index >> np.uint64(32)).astype(jnp.uint32), index.astype(jnp.uint32)


def _row_major(shape: tuple[int, ...], sharding: Any, dtype: Any) -> jax.Array:
    index = jnp.zeros((), dtype)
    for axis, size in enumerate(shape):
        position = lax.broadcasted_iota(dtype, shape, axis, out_sharding=sharding)
        index = index * np.uint64(size).astype(dtype) + position
    return index


def threefry2x32(words: Any, high: Any, low: Any) -> tuple[jax.Array, jax.Array]:
    """The Threefry-2x32-20 block of the counter (high, low) under the key `words`."""
    key = (words[0], words[1], words[0] ^ words[1] ^ np.uint32(0x1BD11BDA))
    x, y = high + key[0], low + key[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = (y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))
            y = x ^ y
        x = x + key[(group + 1) % 3]
        y = y + key[(group + 2) % 3] + np.uint32(group + 1)
    return x, y
