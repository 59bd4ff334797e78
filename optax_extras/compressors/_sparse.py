"""Some of the numbers of each leaf: the largest ones, or random ones."""

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optax_extras._core.axes import vary_over, varying
from optax_extras.compressors._bits import (
    from_bytes,
    pack,
    packed_bytes,
    to_bytes,
    unpack,
)
from optax_extras.compressors._compressor import UNROLL, Compressor, Site, Stack
from optax_extras.compressors._group import Group
from optax_extras.compressors._values import BFLOAT16, Values

# An index into a row of up to so many elements takes 12, 16 or 32 bits.
_BITS = {2**12: 12, 2**16: 16, 2**32: 32}

# The numbers of a group, of which a selection first compares the largest.
_SIDE = 16


class Sparse(Compressor):
    """Sends some of the numbers that make up a leaf, none of them twice in a message.

    The numbers are the elements of the leaf, unless a subclass has others.
    """

    @abc.abstractmethod
    def entries(self, data: jax.Array, site: Site) -> tuple[jax.Array, jax.Array]:
        """Indices of numbers, int32[k], beyond them for none, and float32 values."""

    def places(self, shape: tuple[int, ...]) -> int:
        """How many numbers make up a leaf."""
        return math.prod(shape)

    def leaf(self, numbers: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The leaf that they make up, as a linear function of them."""
        return numbers.reshape(shape)

    def saves(self, shape: tuple[int, ...]) -> bool:
        """Whether the message about a leaf is no longer than the leaf in float32."""
        if self.places(shape) >= 2**31:
            raise ValueError(
                "`params` must have leaves of less than 2^31 elements on a device,"
                f" whose indices are int32, got one of the shape {shape}: shard it"
            )
        return super().saves(shape)

    def decode(self, data: jax.Array, site: Site) -> jax.Array:
        """What a message stands for, with zeros where it has nothing."""
        zeros = jnp.zeros(self.places(site.shape), jnp.float32)
        return self.leaf(_added(zeros, *self.entries(data, site)), site.shape)

    def left(self, messages: jax.Array, stack: Stack) -> jax.Array:
        """What messages leave of leaves; in place, as most of them stays."""

        def left(x: jax.Array, message: jax.Array, site: Site) -> jax.Array:
            indices, values = self.entries(message, site)
            return _added(x.reshape(-1), indices, -values).reshape(x.shape)

        rest: jax.Array = stack.map(left, stack.x, messages)
        return rest

    def mean(self, messages: jax.Array, site: Site, group: Group) -> jax.Array:
        """The mean of what the messages stand for."""
        zeros = jnp.zeros(self.places(site.shape), jnp.float32)
        zeros = vary_over(zeros, varying(messages))
        by_senders = group.average == "senders"
        weights = jnp.ones(len(messages)) if group.weights is None else group.weights

        def add(totals: Any, sent: Any) -> tuple[Any, None]:
            message, weight = sent
            indices, values = self.entries(message, site)
            sums, senders = totals
            if by_senders:
                senders = _added(senders, indices, jnp.full_like(values, weight))
            return (_added(sums, indices, values), senders), None

        start = (zeros, zeros if by_senders else jnp.float32(group.total))
        (sums, senders), _ = lax.scan(add, start, (messages, weights), unroll=UNROLL)
        return self.leaf(sums / jnp.where(senders > 0, senders, 1), site.shape)


def _added(total: jax.Array, indices: jax.Array, values: jax.Array) -> jax.Array:
    """Adds values at different indices, so that no order of additions is left open."""
    return total.at[indices].add(values, mode="drop", unique_indices=True)


class Largest(Sparse):
    """Sends the numbers of the largest magnitude of each row that a leaf is cut into.

    Attributes:
      values: how their values are sent.
    """

    values: Values

    @abc.abstractmethod
    def cut(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Rows that a leaf is cut into, their length, and entries sent of each."""

    @abc.abstractmethod
    def rows(self, x: jax.Array) -> jax.Array:
        """The numbers that make up a leaf, in these rows; 0 for what is none."""

    def is_whole(self, shape: tuple[int, ...]) -> bool:
        """Whether all is sent, and then the leaf as it is."""
        _, width, k = self.cut(shape)
        return k == width

    def encode(self, x: jax.Array, site: Site) -> jax.Array:
        """Packed indices, and values; where all is sent, float32 and no indices."""
        if self.is_whole(x.shape):
            return to_bytes(x.reshape(-1))
        _, width, k = self.cut(x.shape)
        rows = self.rows(x)
        local = _largest(rows, k)
        values = jnp.take_along_axis(rows, local, axis=1)
        inside = self._indices(local, x.shape) < self.places(x.shape)
        packed = pack(local.reshape(-1), _bits(width))
        return jnp.concatenate([packed, self.values.encode(values, inside)])

    def entries(self, data: jax.Array, site: Site) -> tuple[jax.Array, jax.Array]:
        """Indices of numbers, and float32 values."""
        if self.is_whole(site.shape):
            whole = from_bytes(data, (site.size,), jnp.float32)
            return jnp.arange(site.size, dtype=jnp.int32), whole
        rows, width, k = self.cut(site.shape)
        size = packed_bytes(rows * k, _bits(width))
        local = unpack(data[:size], _bits(width), rows * k).astype(jnp.int32)
        indices = self._indices(local.reshape(rows, k), site.shape)
        values = self.values.decode(data[size:], (rows, k))
        return indices.reshape(-1), values.reshape(-1)

    def _indices(self, local: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Indices of numbers by those in their rows, (rows, k)."""
        rows, width, _ = self.cut(shape)
        return (
            local + jnp.arange(0, rows * width, width, dtype=jnp.int32)[:, np.newaxis]
        )


@dataclasses.dataclass(frozen=True)
class TopK(Largest):
    """See `top_k`."""

    density: float
    chunk: int | None
    values: Values = BFLOAT16

    def cut(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Chunks of the leaf, and the share of each that is sent."""
        size = math.prod(shape)
        width = min(self.chunk or size, size)
        return -(-size // width), width, math.ceil(self.density * width)

    def rows(self, x: jax.Array) -> jax.Array:
        """The chunks, the last one filled with zeros."""
        rows, width, _ = self.cut(x.shape)
        padded = jnp.pad(x.reshape(-1), (0, rows * width - x.size))
        return padded.reshape(rows, width)


def _largest(x: jax.Array, k: int) -> jax.Array:
    """Indices of the k largest magnitudes of each row, (rows, k).

    They are in the k groups with the largest maxima, so that only these are sorted.
    """
    rows, width = x.shape
    if k * _SIDE * 2 > width:
        return lax.top_k(jnp.abs(x), k)[1]
    # Numbers of a group are apart, so that XLA takes the maxima of many at a time.
    squares = jnp.pad(x, ((0, 0), (0, -width % _SIDE**2)))
    squares = squares.reshape(rows, -1, _SIDE, _SIDE)
    most = jnp.maximum(squares.max(axis=2), -squares.min(axis=2)).reshape(rows, -1)
    _, groups = lax.top_k(most, k)
    starts = groups // _SIDE * _SIDE**2 + groups % _SIDE
    apart = jnp.arange(0, _SIDE**2, _SIDE, dtype=jnp.int32)[np.newaxis, np.newaxis]
    found = (starts[:, :, np.newaxis] + apart).reshape(rows, -1)
    values = jnp.abs(jnp.take_along_axis(x, jnp.minimum(found, width - 1), axis=1))
    # Never one of the numbers that fill the last square.
    _, best = lax.top_k(jnp.where(found < width, values, -1), k)
    return jnp.take_along_axis(found, best, axis=1)


def _bits(width: int) -> int:
    return next(bits for most, bits in _BITS.items() if width <= most)


@dataclasses.dataclass(frozen=True, eq=False)
class RandomK(Sparse):
    """See `random_k`."""

    density: float
    words: Any

    def _indices(self, site: Site) -> jax.Array:
        """One index in each of k intervals of nearly equal length."""
        k = math.ceil(self.density * site.size)
        length, longer = divmod(site.size, k)
        number = jnp.arange(k, dtype=jnp.int32)
        starts = number * length + jnp.minimum(number, longer)
        lengths = length + (number < longer)
        return starts + jax.random.randint(site.key(self.words), (k,), 0, lengths)

    def encode(self, x: jax.Array, site: Site) -> jax.Array:
        """bfloat16 values at indices that every worker knows; float32 at density 1."""
        return to_bytes(x.reshape(-1)[self._indices(site)].astype(self._dtype))

    def entries(self, data: jax.Array, site: Site) -> tuple[jax.Array, jax.Array]:
        """Flat indices and float32 values."""
        indices = self._indices(site)
        values = from_bytes(data, indices.shape, self._dtype)
        return indices, values.astype(jnp.float32)

    def mean(self, messages: jax.Array, site: Site, group: Group) -> jax.Array:
        """The mean of the values, which are at the same indices on all workers."""
        indices = self._indices(site)

        def add(total: jax.Array, message: jax.Array) -> tuple[jax.Array, None]:
            return total + from_bytes(message, indices.shape, self._dtype), None

        zeros = vary_over(jnp.zeros(indices.shape, jnp.float32), varying(messages))
        total, _ = lax.scan(add, zeros, messages, unroll=UNROLL)
        whole = jnp.zeros(site.size, jnp.float32)
        mean = _added(whole, indices, total / group.total)
        return mean.reshape(site.shape)

    @property
    def _dtype(self) -> Any:
        return jnp.float32 if self.density == 1 else jnp.bfloat16
