"""Arrays as bytes, and small integers packed into bytes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def to_bytes(x: jax.Array) -> jax.Array:
    """The bytes of an array, uint8[B]."""
    return lax.bitcast_convert_type(x, jnp.uint8).reshape(-1)


def from_bytes(data: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The array whose bytes these are; the inverse of `to_bytes`."""
    width = jnp.dtype(dtype).itemsize
    if width > 1:
        data = data.reshape(*shape, width)
    return lax.bitcast_convert_type(data.reshape(*shape, *[width] * (width > 1)), dtype)


def packed_bytes(count: int, bits: int) -> int:
    """The number of bytes that `count` integers of so many bits take."""
    return -(-count * bits // 8)


def pack(x: jax.Array, bits: int) -> jax.Array:
    """Packs integers below 2^bits into bytes along the last axis.

    Args:
      x: integers, (..., n).
      bits: 1, 2, 4, 8, 12, 16 or 32.

    Returns:
      uint8[..., ceil(n · bits / 8)]; what is missing in the last byte is 0.
    """
    *rest, n = x.shape
    if bits == 12:
        pairs = _padded(x.astype(jnp.uint32), 2).reshape(*rest, -1, 2)
        words = pairs[..., 0] | pairs[..., 1] << np.uint32(12)
        three = words[..., np.newaxis] >> np.array([0, 8, 16], np.uint32)
        data = (three & np.uint32(255)).astype(jnp.uint8).reshape(*rest, -1)
        return data[..., : packed_bytes(n, bits)]
    if bits >= 8:
        whole = x.astype(f"uint{bits}")
        return lax.bitcast_convert_type(whole, jnp.uint8).reshape(*rest, -1)
    each = 8 // bits
    parts = _padded(x.astype(jnp.uint8), each).reshape(*rest, -1, each)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    # The bits do not overlap, so that their sum is their union.
    return jnp.sum(parts << shifts, axis=-1, dtype=jnp.uint8)


def unpack(data: jax.Array, bits: int, n: int) -> jax.Array:
    """The n integers that `pack` packed, uint32[..., n], or uint8 below 8 bits."""
    *rest, size = data.shape
    if bits == 12:
        three = _padded(data, 3).reshape(*rest, -1, 3).astype(jnp.uint32)
        words = three[..., 0] | three[..., 1] << 8 | three[..., 2] << 16
        pairs = jnp.stack([words & 4095, words >> 12], axis=-1)
        return pairs.reshape(*rest, -1)[..., :n]
    if bits == 8:
        return data
    if bits > 8:
        whole = data.reshape(*rest, n, bits // 8)
        return lax.bitcast_convert_type(whole, f"uint{bits}").astype(jnp.uint32)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    mask = np.uint8(2**bits - 1)
    return (data[..., np.newaxis] >> shifts & mask).reshape(*rest, size * len(shifts))[
        ..., :n
    ]


def _padded(x: jax.Array, multiple: int) -> jax.Array:
    """Zeros behind the last axis up to a multiple of so many."""
    missing = -x.shape[-1] % multiple
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)]) if missing else x
