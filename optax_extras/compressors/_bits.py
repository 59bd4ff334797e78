"""Arrays as bytes, and small integers packed into bytes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def to_bytes(x: jax.Array) -> jax.Array:
    """The bytes of an array.

    Args:
      x: an array of any shape.

    Returns:
      uint8[B].
    """
    return lax.bitcast_convert_type(x, jnp.uint8).reshape(-1)


def from_bytes(data: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The array whose bytes these are; the inverse of `to_bytes`.

    Args:
      data: uint8[B].
      shape: the array's shape.
      dtype: the array's dtype.
    """
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
      uint8[..., B] with B = ceil(n · bits / 8); what is missing is 0. Of fewer than 8
      bits, integers that are B apart share a byte.
    """
    if bits == 12:
        low, high = _columns(x.astype(jnp.uint32), 2)
        parts = [low, low >> 8 | high << 4, high >> 4]
        data = jnp.stack([part.astype(jnp.uint8) for part in parts], axis=-1)
        whole = data.reshape(*x.shape[:-1], 3 * low.shape[-1])
        return whole[..., : packed_bytes(x.shape[-1], bits)]
    if bits >= 8:
        data = lax.bitcast_convert_type(x.astype(f"uint{bits}"), jnp.uint8)
        return data.reshape(*x.shape[:-1], x.shape[-1] * bits // 8)
    width = packed_bytes(x.shape[-1], bits)
    missing = width * (8 // bits) - x.shape[-1]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    return merge(padded.reshape(*x.shape[:-1], 8 // bits, width), bits)


def unpack(data: jax.Array, bits: int, n: int) -> jax.Array:
    """The integers that `pack` packed.

    Args:
      data: bytes, uint8[..., B].
      bits: as for `pack`.
      n: number of integers.

    Returns:
      uint32[..., n], or uint8 up to 8 bits.
    """
    rest = data.shape[:-1]
    if bits == 8:
        return data
    if bits == 12:
        one, two, three = _columns(data.astype(jnp.uint32), 3)
        parts = [one | (two & 15) << 8, two >> 4 | three << 4]
    elif bits > 8:
        whole = data.reshape(*rest, n, bits // 8)
        return lax.bitcast_convert_type(whole, f"uint{bits}").astype(jnp.uint32)
    else:
        return part(data, bits).reshape(*rest, -1)[..., :n]
    mixed = jnp.stack(parts, axis=-1)
    return mixed.reshape(*rest, len(parts) * parts[0].shape[-1])[..., :n]


def merge(parts: jax.Array, bits: int) -> jax.Array:
    """Bytes of the integers along the axis before the last, the first one lowest.

    Args:
      parts: integers below 2^bits, (..., 8 / bits, n).
      bits: 1, 2, 4 or 8.

    Returns:
      uint8[..., n].
    """
    shifted = parts.astype(jnp.uint8) << _shifts(bits, parts.ndim)
    return jnp.sum(shifted, axis=-2, dtype=jnp.uint8)


def part(data: jax.Array, bits: int) -> jax.Array:
    """The integers that `merge` merged, uint8[..., 8 / bits, n]."""
    parts = data[..., np.newaxis, :]
    return parts >> _shifts(bits, parts.ndim) & np.uint8(2**bits - 1)


def _shifts(bits: int, ndim: int) -> jax.Array:
    """How far each of the integers in a byte is shifted, uint8[..., 8 / bits, 1]."""
    shifts = jnp.arange(0, 8, bits, dtype=jnp.uint8)
    return shifts.reshape((1,) * (ndim - 2) + (-1, 1))


def _columns(x: jax.Array, count: int) -> list[jax.Array]:
    """Every count-th number of the last axis, from the first one on, and so forth."""
    missing = -x.shape[-1] % count
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    return [padded[..., i::count] for i in range(count)]
