"""Numbers of few bits, exchanged in two phases with a residual in each."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from optax_extras._core.placement import Divided, Layout, shards, zeros
from optax_extras.compressors._bits import (
    pack,
    packed_bytes,
    unpack,
)
from optax_extras.compressors._compressor import Compressor, Exchanged, Group, Site


class _Code(abc.ABC):
    """Codes of rows of numbers, with scales for each row."""

    bits: int
    scales: int

    @abc.abstractmethod
    def encode(self, x: jax.Array, counts: Any, uniform: Any) -> tuple[Any, Any]:
        """Codes (R, n) and scales (R, scales) of rows with so many numbers each."""

    @abc.abstractmethod
    def decode(self, codes: jax.Array, scales: jax.Array) -> jax.Array:
        """What codes and scales stand for, (R, n)."""


@dataclasses.dataclass(frozen=True)
class Linear(_Code):
    """Multiples of a part of the largest magnitude, rounded to the nearest or not."""

    bits: int
    scales: int = 1

    @property
    def _top(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def encode(self, x: jax.Array, counts: Any, uniform: Any) -> tuple[Any, Any]:
        """Codes and the largest magnitude of each row."""
        del counts
        scale = jnp.max(jnp.abs(x), axis=1, keepdims=True)
        # Not top / scale, which overflows where all are tiny.
        steps = x / jnp.where(scale > 0, scale, 1) * self._top
        steps = jnp.round(steps) if uniform is None else jnp.floor(steps + uniform)
        return (steps + self._top).astype(jnp.uint8), scale

    def decode(self, codes: jax.Array, scales: jax.Array) -> jax.Array:
        """The multiples."""
        return (codes.astype(jnp.float32) - self._top) * (scales / self._top)


@dataclasses.dataclass(frozen=True)
class TwoLevels(_Code):
    """Signs, and one of two magnitudes: the means of those below and above the mean.

    The error is at most the row itself, whatever is in it.
    """

    bits: int = 2
    scales: int = 2

    def encode(self, x: jax.Array, counts: Any, uniform: Any) -> tuple[Any, Any]:
        """Codes and the two magnitudes of each row."""
        del uniform
        magnitude = jnp.abs(x)
        total = jnp.sum(magnitude, axis=1, keepdims=True)
        large = magnitude > total / counts
        number = jnp.sum(large, axis=1, keepdims=True, dtype=jnp.float32)
        of_large = jnp.sum(jnp.where(large, magnitude, 0), axis=1, keepdims=True)
        of_small = jnp.sum(jnp.where(large, 0, magnitude), axis=1, keepdims=True)
        means = [
            of_small / jnp.maximum(counts - number, 1),
            of_large / jnp.maximum(number, 1),
        ]
        return large * np.uint8(2) + (x < 0), jnp.concatenate(means, axis=1)

    def decode(self, codes: jax.Array, scales: jax.Array) -> jax.Array:
        """The magnitudes with their signs."""
        magnitude = jnp.where(codes >= 2, scales[:, 1:], scales[:, :1])
        return jnp.where(codes % 2 == 1, -magnitude, magnitude)


@dataclasses.dataclass(frozen=True)
class Sign(_Code):
    """Signs, and one magnitude; 0 counts as positive."""

    scale: str
    bits: int = 1
    scales: int = 1

    def encode(self, x: jax.Array, counts: Any, uniform: Any) -> tuple[Any, Any]:
        """Codes and the magnitude of each row."""
        del uniform
        powers = jnp.abs(x) if self.scale == "mean" else x**2
        mean = jnp.sum(powers, axis=1, keepdims=True) / counts
        return x < 0, mean if self.scale == "mean" else jnp.sqrt(mean)

    def decode(self, codes: jax.Array, scales: jax.Array) -> jax.Array:
        """The magnitude with its signs."""
        return jnp.where(codes == 1, -scales, scales)


@dataclasses.dataclass(frozen=True, eq=False)
class Quantized(Compressor):
    """See `quantized` and `sign`."""

    code: _Code
    block: int
    words: Any = None  # of the key for stochastic rounding

    def encode(self, x: jax.Array, site: Site) -> jax.Array:
        """Codes and scales of the blocks of a leaf."""
        rows, counts = _blocks([x], self.block)
        return self._encode(rows, counts, self._uniform(rows, site, 0)).reshape(-1)

    def decode(self, data: jax.Array, site: Site) -> jax.Array:
        """What they stand for."""
        rows = self._decode(data.reshape(-(-site.size // self.block), -1))
        return rows.reshape(-1)[: site.size].reshape(site.shape)

    def _uniform(self, like: jax.Array, site: Site, phase: int) -> Any:
        if self.words is None:
            return None
        key = jax.random.fold_in(site.key(self.words, of_worker=True), phase)
        return jax.random.uniform(key, like.shape)

    def _encode(self, rows: jax.Array, counts: Any, uniform: Any) -> jax.Array:
        """Bytes of each row, (R, B)."""
        codes, scales = self.code.encode(rows, jnp.maximum(counts, 1), uniform)
        data = lax.bitcast_convert_type(scales, jnp.uint8).reshape(len(rows), -1)
        return jnp.concatenate([pack(codes, self.code.bits), data], axis=1)

    def _decode(self, data: jax.Array) -> jax.Array:
        """Numbers of each row, (R, block)."""
        size = packed_bytes(self.block, self.code.bits)
        codes = unpack(data[:, :size], self.code.bits, self.block)
        scales = data[:, size:].reshape(len(data), self.code.scales, 4)
        return self.code.decode(codes, lax.bitcast_convert_type(scales, jnp.float32))

    def init(
        self, layouts: Sequence[Layout], paths: Sequence[Any], group: Group
    ) -> Any:
        """What each worker's part of the mean has lost, if rounding has a bias."""
        del paths
        if self.words is not None:
            return ()
        axes = tuple(dict.fromkeys(name for one in layouts for name in one.axes))
        rows = sum(-(-math.prod(one.shape) // self.block) for one in layouts)
        part = -(-rows // group.workers) * shards(layouts, axes)
        spec = PartitionSpec(group.axis_name, axes or None)
        shape = (group.workers, part, self.block)
        value = zeros(shape, spec, layouts, group.axis_name)
        return Divided(value, jnp.int32(rows))

    def exchange(
        self,
        leaves: Sequence[jax.Array],
        sites: Sequence[Site],
        state: Any,
        finite: jax.Array,
        group: Group,
    ) -> Exchanged:
        """Sums a part of the rows on each worker, and gathers the parts."""
        rows, counts = _blocks(leaves, self.block)
        workers, part = group.workers, -(-len(rows) // group.workers)
        if keeps := isinstance(state, Divided):
            part, needed = state.value.shape[1], part
            if part < needed:
                raise ValueError(
                    f"the state has room for {part} blocks of {self.block} elements on"
                    f" each worker, but {needed} are needed: give `init` parameters"
                    " that are sharded as in `update`"
                )
        missing = workers * part - len(rows)
        rows = jnp.pad(rows, ((0, missing), (0, 0)))
        counts = np.pad(counts, ((0, missing), (0, 0)))
        uniform = self._uniform(rows, sites[0], 0)
        codes = self._encode(rows, counts, uniform)
        flags = jnp.broadcast_to(finite.astype(jnp.uint8), (workers, 1))
        messages = jnp.concatenate([codes.reshape(workers, -1), flags], axis=1)
        received = group.transpose(messages)

        own = sites[0].worker * part
        own_counts = lax.dynamic_slice_in_dim(jnp.asarray(counts), own, part)
        inside = jnp.arange(self.block)[np.newaxis] < own_counts
        sums = [self._decode(r[:-1].reshape(part, -1)) for r in received]
        mean = jnp.where(inside, sum(sums) / workers, 0)
        if keeps:
            mean = mean + state.value[0]
        uniform = self._uniform(mean, sites[0], 1)
        again = self._encode(mean, own_counts, uniform)
        if keeps:
            lost = jnp.where(inside, mean - self._decode(again), 0)
            state = state._replace(value=lost[np.newaxis])
        flag = jnp.min(received[:, -1])[np.newaxis]
        gathered = group.gather(jnp.concatenate([again.reshape(-1), flag]))
        means = self._decode(gathered[:, :-1].reshape(workers * part, -1))
        shapes = [site.shape for site in sites]
        return Exchanged(
            _leaves(means, shapes),
            _leaves(self._decode(codes), shapes),
            state,
            jnp.all(gathered[:, -1] == 1),
        )


def _blocks(
    leaves: Sequence[jax.Array], block: int
) -> tuple[jax.Array, np.ndarray[Any, Any]]:
    """Rows of a block each, and how many numbers of them are no padding, (R, 1)."""
    rows, counts = [], []
    for leaf in leaves:
        number = -(-leaf.size // block)
        padded = jnp.pad(leaf.reshape(-1), (0, number * block - leaf.size))
        rows.append(padded.reshape(number, block))
        counts.append(np.clip(leaf.size - block * np.arange(number), 0, block))
    return jnp.concatenate(rows), np.concatenate(counts)[:, np.newaxis].astype("f4")


def _leaves(rows: jax.Array, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """The leaves that `_blocks` has cut into rows."""
    block = rows.shape[1]
    sizes = [math.prod(shape) for shape in shapes]
    ends = np.cumsum([-(-size // block) for size in sizes])
    return [
        rows[end - -(-size // block) : end].reshape(-1)[:size].reshape(shape)
        for end, size, shape in zip(ends, sizes, shapes, strict=True)
    ]
