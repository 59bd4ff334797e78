"""The blocks of an array: boxes of its elements, of one size.

All arithmetic on codes is in the shape of the array: XLA writes new codes over the old
ones only where the two have one shape.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from optax_extras._core.axes import names_of
from optax_extras._core.opaque import barrier
from optax_extras._core.placement import explicit_sharding

# What a first maximum leaves for a second one; XLA vectorises over them.
_COLUMNS = 16


def box(shape: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The size of a block along each axis, of at most so many elements in all.

    It is a part of the last axis, whose blocks may have nothing in their last places;
    where that leaves room, it divides the axes before. XLA:CPU takes twice as long for
    blocks of several short rows.
    """
    if not shape:
        return ()
    *before, last = shape
    room = max(most // max(last, 1), 1)
    sizes: list[int] = []
    for size in reversed(before):
        sizes.insert(0, _divisor(size, room))
        room //= sizes[0]
    room = most // math.prod(sizes)
    part = _divisor(last, room)
    if 2 * part <= min(last, room):
        part = -(-last // -(-last // room))
    return (*sizes, part)


def _divisor(size: int, most: int) -> int:
    """The largest divisor up to a limit."""
    return next((n for n in range(min(size, most), 0, -1) if size % n == 0), 1)


@dataclasses.dataclass(frozen=True)
class Grid:
    """The blocks of an array.

    Attributes:
      shape: that of the array.
      box: the size of a block along each axis.
    """

    shape: tuple[int, ...]
    box: tuple[int, ...]

    @property
    def blocks(self) -> tuple[int, ...]:
        """Their number along each axis."""
        return tuple(
            -(-n // part) for n, part in zip(self.shape, self.box, strict=True)
        )

    def largest(self, x: jax.Array) -> jax.Array:
        """The number of each block whose bits are the largest unsigned integer."""
        # XLA:CPU leaves the maximum of floats to a library, and writes out `x` for it.
        bits = lax.bitcast_convert_type(x, jnp.uint32)
        sizes = self._split
        axes = list(range(1, len(sizes), 2))
        in_two = bool(sizes) and sizes[-1] % _COLUMNS == 0
        if in_two:
            sizes[-1:] = [sizes[-1] // _COLUMNS, _COLUMNS]
        entries = [e for entry in self._entries(x) for e in (entry, None)]
        padded = self._padded(bits)
        bits = _reshape(padded, sizes, [*entries, *[None] * in_two])
        largest = jnp.max(bits, axes, initial=np.uint32(0))
        if in_two:
            largest = jnp.max(barrier(largest), -1)
        return lax.bitcast_convert_type(largest, jnp.float32)

    def spread(self, scales: jax.Array, like: jax.Array) -> jax.Array:
        """For each element of an array, the number of its block."""
        each = jnp.expand_dims(scales, range(1, 2 * scales.ndim, 2))
        each = lax.broadcast_in_dim(
            each, self._split, range(each.ndim), out_sharding=explicit_sharding(each)
        )
        return self._cut(_reshape(each, self._whole, self._entries(like)))

    def packed(self, codes: jax.Array) -> jax.Array:
        """Codes of 4 bits; a byte has those at one place of both halves of a block."""
        if not self.shape:
            return codes
        entries = self._entries(codes)
        *before, blocks, part = *self.shape[:-1], self.blocks[-1], self.box[-1]
        x = _reshape(self._padded(codes), [*before, blocks, part], [*entries, None])
        half = -(-part // 2)
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 2 * half - part)])
        x = _reshape(x, [*before, blocks, 2, half], [*entries, None, None])
        # A sum, which XLA:CPU vectorises, and not an "or" of two slices.
        data = jnp.sum(x << self._shifts(x), -2, dtype=jnp.uint8)
        return _reshape(data, [*before, blocks * half], entries)

    def parted(self, data: jax.Array) -> jax.Array:
        """Codes that were packed."""
        if not self.shape:
            return data
        entries = self._entries(data)
        *before, blocks, part = *self.shape[:-1], self.blocks[-1], self.box[-1]
        half = -(-part // 2)
        x = _reshape(data, [*before, blocks, 1, half], [*entries, None, None])
        x = jnp.broadcast_to(x, (*before, blocks, 2, half))
        x = x >> self._shifts(x) & np.uint8(15)
        x = _reshape(x, [*before, blocks, 2 * half], [*entries, None])[..., :part]
        return self._cut(_reshape(x, self._whole, entries))

    @staticmethod
    def _shifts(halves: jax.Array) -> jax.Array:
        """Those of the two halves of blocks, (..., 2, n), in their bytes."""
        shifts = lax.broadcasted_iota(jnp.uint8, (2, 1), 0) * np.uint8(4)
        return jnp.expand_dims(shifts, range(halves.ndim - 2))

    @property
    def _split(self) -> list[int]:
        """The shape with two axes for each: blocks, and places in a block."""
        return [n for pair in zip(self.blocks, self.box, strict=True) for n in pair]

    @property
    def _whole(self) -> tuple[int, ...]:
        """The shape with all places of the last blocks."""
        pairs = zip(self.blocks, self.box, strict=True)
        return tuple(number * part for number, part in pairs)

    def _padded(self, x: jax.Array) -> jax.Array:
        """An array with zeros in places of the last blocks that it does not have."""
        if self._whole == self.shape:
            return x
        missing = self._whole[-1] - self.shape[-1]
        padding = [(0, 0)] * (len(self.shape) - 1) + [(0, missing)]
        return jnp.pad(_without_last(x), padding)

    def _cut(self, x: jax.Array) -> jax.Array:
        """An array without those places."""
        if self._whole == self.shape:
            return x
        return _without_last(x)[..., : self.shape[-1]]

    def _entries(self, x: jax.Array) -> list[Any]:
        """The axes of an explicit mesh that whole blocks are sharded over."""
        sharding = explicit_sharding(x)
        if sharding is None:
            return [None] * len(self.shape)
        sizes = [
            math.prod(sharding.mesh.shape[name] for name in names_of(entry))
            for entry in sharding.spec
        ]
        return [
            e if number % size == 0 else None
            for e, number, size in zip(sharding.spec, self.blocks, sizes, strict=True)
        ]


def _reshape(x: jax.Array, shape: Sequence[int], entries: Sequence[Any]) -> jax.Array:
    """An array in another shape; on an explicit mesh, over these axes of it."""
    sharding = explicit_sharding(x)
    if sharding is not None:
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*entries))
    return jnp.reshape(x, shape, out_sharding=sharding)


def _without_last(x: jax.Array) -> jax.Array:
    """An array that is not sharded along its last axis, on an explicit mesh."""
    sharding = explicit_sharding(x)
    if sharding is None or sharding.spec[-1] is None:
        return x
    spec = PartitionSpec(*sharding.spec[:-1], None)
    whole: jax.Array = jax.sharding.reshard(x, NamedSharding(sharding.mesh, spec))
    return whole
