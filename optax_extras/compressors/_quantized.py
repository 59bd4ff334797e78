"""Numbers of few bits, exchanged in two phases with a residual in each.

Rows of numbers are blocks of a leaf in an array (R, P, n): a byte holds the P = 8 /
bits numbers at one place of the last axis. XLA vectorises what stays in that shape.
"""

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

from optax_extras._core.joining import parted
from optax_extras._core.placement import Divided, Layout, axes_of, shards, zeros
from optax_extras.compressors._bits import from_bytes, merge, part, to_bytes
from optax_extras.compressors._compressor import (
    UNROLL,
    Compressor,
    Exchanged,
    Site,
    Stack,
)
from optax_extras.compressors._group import Group


class _Code(abc.ABC):
    """Codes of rows of numbers, with scales for each row."""

    bits: int
    scales: int

    @abc.abstractmethod
    def encode(self, x: jax.Array, counts: Any, uniform: Any) -> tuple[Any, Any]:
        """Codes (R, P, n) and scales (R, scales) of rows with (R,) numbers each."""

    @abc.abstractmethod
    def decode(self, codes: jax.Array, scales: jax.Array) -> jax.Array:
        """What codes and scales stand for, (R, P, n)."""


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
        # Both ends, because XLA would write magnitudes to memory first.
        scale = jnp.maximum(x.max(axis=(1, 2)), -x.min(axis=(1, 2)))
        # Not top / scale, which overflows where all are tiny.
        unit = jnp.where(scale > 0, scale, 1)[:, np.newaxis, np.newaxis]
        steps = x / unit * self._top
        steps = jnp.round(steps) if uniform is None else jnp.floor(steps + uniform)
        return (steps + self._top).astype(jnp.uint8), scale[:, np.newaxis]

    def decode(self, codes: jax.Array, scales: jax.Array) -> jax.Array:
        """The multiples."""
        unit = (scales / self._top)[..., np.newaxis]
        return (codes.astype(jnp.float32) - self._top) * unit


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
        total = _row_sums(magnitude)
        large = magnitude > (total / counts)[:, np.newaxis, np.newaxis]
        number = _row_sums(large.astype(jnp.float32))
        of_large = _row_sums(jnp.where(large, magnitude, 0))
        means = [
            (total - of_large) / jnp.maximum(counts - number, 1),
            of_large / jnp.maximum(number, 1),
        ]
        return large * np.uint8(2) + (x < 0), jnp.stack(means, axis=1)

    def decode(self, codes: jax.Array, scales: jax.Array) -> jax.Array:
        """The magnitudes with their signs."""
        low, high = (scales[:, i, np.newaxis, np.newaxis] for i in (0, 1))
        magnitude = jnp.where(codes >= 2, high, low)
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
        mean = _row_sums(jnp.abs(x) if self.scale == "mean" else x**2) / counts
        mean = mean if self.scale == "mean" else jnp.sqrt(mean)
        return x < 0, mean[:, np.newaxis]

    def decode(self, codes: jax.Array, scales: jax.Array) -> jax.Array:
        """The magnitude with its signs."""
        scales = scales[..., np.newaxis]
        return jnp.where(codes == 1, -scales, scales)


def _row_sums(x: jax.Array) -> jax.Array:
    """Sums of rows, (R,)."""
    # In two steps, because XLA vectorises a sum over the last axis only by itself.
    first = sum(x[:, i] for i in range(x.shape[1]))
    return jnp.sum(lax.optimization_barrier(first), axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Quantized(Compressor):
    """See `quantized` and `sign`."""

    code: _Code
    block: int
    words: Any = None  # of the key for stochastic rounding

    def encode(self, x: jax.Array, site: Site) -> jax.Array:
        """Codes and scales of the blocks of a leaf."""
        uniform = self._uniform(site, 0, -(-x.size // self.block))
        rows = self._rows(x[np.newaxis])
        codes, scales = self._encode(rows, self._counts(x.size), uniform)
        return jnp.concatenate([codes.reshape(-1), to_bytes(scales)])

    def decode(self, data: jax.Array, site: Site) -> jax.Array:
        """What they stand for."""
        number = -(-site.size // self.block)
        (codes,), (scales,) = self._split(data[np.newaxis], number)
        return _leaves(self._decode(codes, scales), (1, *site.shape))[0]

    def init(
        self, layouts: Sequence[Layout], paths: Sequence[Any], group: Group
    ) -> Any:
        """What each worker's part of the mean has lost, if rounding has a bias."""
        del paths
        if not self._keeps:
            return ()
        axes = axes_of(layouts)
        rows = sum(-(-math.prod(one.shape) // self.block) for one in layouts)
        # One or more, because checkpoints cannot hold an empty array.
        own = max(-(-rows // group.workers), 1) * shards(layouts, axes)
        spec = PartitionSpec(group.axis_name, axes or None)
        value = zeros((group.workers, own, *self._row), spec, layouts, group.axis_name)
        return Divided(value, jnp.int32(rows))

    def exchange(
        self, stacks: Sequence[Stack], state: Any, finite: jax.Array, group: Group
    ) -> Exchanged:
        """Sends a part of the blocks to each worker, and its mean to all."""
        counts_of = [np.tile(self._counts(s.site.size), len(s.numbers)) for s in stacks]
        counts = np.concatenate(counts_of)
        own = -(-len(counts) // group.workers)
        missing = group.workers * own - len(counts)
        if self._keeps and state.value.shape[1] != own:
            raise ValueError(
                f"the state has room for {state.value.shape[1]} blocks of"
                f" {self.block} elements on each worker, but {own} are needed: give"
                " `init` parameters that are sharded as in `update`"
            )
        encoded, left = [], []
        for stack, inside in zip(stacks, counts_of, strict=True):
            rows = self._rows(stack.x)
            sent = self._encode(rows, inside, self._uniforms(stack))
            encoded.append(sent)
            left.append(_leaves(rows - self._decode(*sent), stack.x.shape))
        codes, scales = (
            jnp.pad(jnp.concatenate(parts), ((0, missing), (0, 0)))
            for parts in zip(*encoded, strict=True)
        )
        # Sums of a block may overflow, and would be in the residuals from then on.
        finite = finite & jnp.all(jnp.isfinite(scales))
        finite = finite & self.within_limit(stacks, group)
        reports = jnp.tile(group.report(finite), (group.workers, 1))
        by_worker = [x.reshape(group.workers, -1) for x in (codes, to_bytes(scales))]
        received = group.transpose(jnp.concatenate([*by_worker, reports], axis=1))
        everywhere, group = group.heard(received[:, -group.report_bytes :])
        site = stacks[0].site
        own_counts = lax.dynamic_slice_in_dim(
            jnp.asarray(np.pad(counts, (0, missing))), site.worker * own, own
        )
        codes, scales, state = self._mean_of_parts(
            self._split(received, own), own_counts, site, state, group
        )
        flag = everywhere.astype(jnp.uint8)[np.newaxis]
        gathered = group.gather(
            jnp.concatenate([codes.reshape(-1), to_bytes(scales), flag])
        )
        codes, scales = (x.reshape(-1, x.shape[-1]) for x in self._split(gathered, own))
        lengths = [len(rows) for rows, _ in encoded]
        means = [
            _leaves(self._decode(*parts), stack.x.shape)
            for *parts, stack in zip(
                parted(codes[: len(counts)], lengths),
                parted(scales[: len(counts)], lengths),
                stacks,
                strict=True,
            )
        ]
        return Exchanged(means, left, state, jnp.all(gathered[:, -1] == 1))

    def _mean_of_parts(
        self,
        parts: tuple[jax.Array, jax.Array],
        counts: jax.Array,
        site: Site,
        state: Any,
        group: Group,
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Bytes and scales of the mean of rows from all workers, and the new state."""

        def add(total: jax.Array, one: Any) -> tuple[jax.Array, None]:
            return total + self._decode(*one), None

        first, rest = (tuple(x[i] for x in parts) for i in (0, slice(1, None)))
        total, _ = lax.scan(add, self._decode(*first), rest, unroll=UNROLL)
        places = np.arange(self.block).reshape(1, *self._row)
        inside = places < counts[:, np.newaxis, np.newaxis]
        mean = jnp.where(inside, total / group.total, 0)
        if self._keeps:
            mean = mean + state.value[0]
        site = site._replace(path=site.path[0])
        codes, scales = self._encode(mean, counts, self._uniform(site, 1, len(mean)))
        if self._keeps:
            lost = jnp.where(inside, mean - self._decode(codes, scales), 0)
            state = state._replace(value=lost[np.newaxis])
        return codes, scales, state

    @property
    def _keeps(self) -> bool:
        """Whether what rounding loses is kept, because it has a bias."""
        return self.words is None

    @property
    def _row(self) -> tuple[int, int]:
        """(P, n) of a row."""
        return 8 // self.code.bits, self.block * self.code.bits // 8

    def _rows(self, x: jax.Array) -> jax.Array:
        """The blocks of leaves (m, *shape), the last one of each filled with zeros."""
        flat = x.reshape(len(x), -1)
        padded = jnp.pad(flat, ((0, 0), (0, -flat.shape[1] % self.block)))
        return padded.reshape(-1, *self._row)

    def _counts(self, size: int) -> Any:
        """How many elements of a leaf each of its rows has, (R,)."""
        starts = np.arange(0, size, self.block)
        return np.minimum(size - starts, self.block).astype(np.float32)

    def _uniform(self, site: Site, phase: int, rows: int) -> Any:
        """What decides on the rounding of the rows of a leaf, if it is at random."""
        if self.words is None:
            return None
        key = jax.random.fold_in(site.key(self.words, of_worker=True), phase)
        return jax.random.uniform(key, (rows, *self._row), jnp.float32)

    def _uniforms(self, stack: Stack) -> Any:
        """The same of all leaves of a stack."""
        if self.words is None:
            return None
        rows = -(-stack.site.size // self.block)
        made: jax.Array = stack.map(lambda site: self._uniform(site, 0, rows))
        return made.reshape(-1, *self._row)

    def _encode(
        self, rows: jax.Array, counts: Any, uniform: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Bytes (R, n) and scales (R, scales) of rows."""
        codes, scales = self.code.encode(rows, jnp.maximum(counts, 1), uniform)
        # A barrier, as in `_leaves`.
        return lax.optimization_barrier(merge(codes, self.code.bits)), scales

    def _decode(self, codes: jax.Array, scales: jax.Array) -> jax.Array:
        """The rows that bytes and scales stand for."""
        return self.code.decode(part(codes, self.code.bits), scales)

    def _split(self, data: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
        """Bytes (N, rows, n) and scales (N, rows, scales) of messages, (N, B)."""
        size = rows * self._row[1]
        scales = (len(data), rows, self.code.scales)
        end = size + 4 * rows * self.code.scales
        return (
            data[:, :size].reshape(len(data), rows, -1),
            from_bytes(data[:, size:end], scales, jnp.float32),
        )


def _leaves(rows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The leaves (m, *shape) whose blocks they are."""
    # A barrier, because XLA does not vectorise loops over arrays of two shapes.
    flat: jax.Array = lax.optimization_barrier(rows).reshape(shape[0], -1)
    return flat[:, : math.prod(shape[1:])].reshape(shape)
