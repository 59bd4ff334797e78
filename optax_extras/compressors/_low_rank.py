"""Products of two thin matrices, by one power iteration a step (PowerSGD)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from optax_extras._core import paths as leaf_paths
from optax_extras._core.placement import Layout, PerShard, placed, shards
from optax_extras.compressors._compressor import (
    Compressor,
    Exchanged,
    Group,
    Site,
    Stack,
)

# Products of so few columns are sums that XLA computes where they are used; a matrix
# product would be written to memory and read again.
_SUMMED = 4


@dataclasses.dataclass(frozen=True, eq=False)
class LowRank(Compressor):
    """See `low_rank`."""

    rank: int
    words: Any  # of the key of the first Q

    def encode(self, x: jax.Array, site: Site) -> jax.Array:
        """No message stands for one worker's leaf: see `exchange`."""
        raise NotImplementedError("low-rank factors are means over workers")

    def decode(self, data: jax.Array, site: Site) -> jax.Array:
        """No message stands for one worker's leaf: see `exchange`."""
        raise NotImplementedError("low-rank factors are means over workers")

    def saves(self, shape: tuple[int, ...]) -> bool:
        """Whether the factors have less than half of the elements."""
        a, b = _matrix(shape)
        return len(shape) > 1 and self.rank * (a + b) < a * b / 2

    def init(
        self, layouts: Sequence[Layout], paths: Sequence[Any], group: Group
    ) -> Any:
        """The first right factors, from the key; the same on all workers."""
        words = leaf_paths.hash_paths("low_rank", list(paths)).T
        values = []
        for layout, path in zip(layouts, words, strict=True):
            site = Site(layout.shape, jnp.array(path), jnp.int32(0), jnp.int32(0))
            shape = (_matrix(layout.shape)[1], self.rank)
            first = jax.random.normal(site.key(self.words), shape)
            number = shards([layout], layout.axes)
            spec = PartitionSpec(layout.axes or None)
            every = jnp.broadcast_to(first, (number, *shape))
            values.append(placed(every, spec, layouts, group.axis_name))
        return PerShard(values)

    def exchange(
        self, stacks: Sequence[Stack], state: Any, finite: jax.Array, group: Group
    ) -> Exchanged:
        """Two sums over the workers, of P = M Q and of Mᵀ P̂."""
        count = sum(len(stack.numbers) for stack in stacks)
        if count != len(state.value):
            raise ValueError(
                f"`updates` must have a gradient for each of the {len(state.value)}"
                f" matrices that are compressed, got {count}: without `feedback`, none"
                " may be None"
            )
        matrices = [s.x.reshape(-1, *_matrix(s.site.shape)) for s in stacks]
        rights = [jnp.concatenate([state.value[i] for i in s.numbers]) for s in stacks]
        flag = finite.astype(jnp.float32)[np.newaxis]
        *lefts, flags = group.sum_of([*map(_times, matrices, rights), flag])
        bases = [jnp.linalg.qr(p / group.workers)[0] for p in lefts]
        rights = group.sum_of(list(map(_transposed_times, matrices, bases)))
        rights = [q / group.workers for q in rights]
        means = [
            _product(p, q, stack.site.shape)
            for p, q, stack in zip(bases, rights, stacks, strict=True)
        ]
        left = [stack.x - mean for stack, mean in zip(stacks, means, strict=True)]
        kept = list(state.value)
        for stack, q in zip(stacks, rights, strict=True):
            for i, own in zip(stack.numbers, q, strict=True):
                kept[i] = own[np.newaxis]
        return Exchanged(
            means, left, state._replace(value=kept), flags[0] == group.workers
        )


# Not batched, because XLA multiplies batches of matrices without its fast kernels.
def _times(matrices: jax.Array, rights: jax.Array) -> jax.Array:
    """M Q of each matrix, (m, a, r)."""
    return jnp.stack([m @ q for m, q in zip(matrices, rights, strict=True)])


def _transposed_times(matrices: jax.Array, lefts: jax.Array) -> jax.Array:
    """Mᵀ P of each matrix, (m, b, r)."""
    # Not m.T @ p, for which XLA transposes the matrix in memory.
    products = [
        jnp.einsum("ab,ar->rb", m, p).T for m, p in zip(matrices, lefts, strict=True)
    ]
    return jnp.stack(products)


def _product(lefts: jax.Array, rights: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """P Qᵀ of each pair, (m, *shape)."""
    if lefts.shape[-1] > _SUMMED:
        return jnp.einsum("mar,mbr->mab", lefts, rights).reshape(-1, *shape)
    ones = (1,) * (len(shape) - 1)
    total = jnp.zeros(())
    for p, q in zip(lefts.transpose(2, 0, 1), rights.transpose(2, 0, 1), strict=True):
        of_rows = p.reshape(-1, *shape[:-1], 1)
        total = total + of_rows * q.reshape(-1, *ones, shape[-1])
    return total


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of a kernel as a matrix: its last axis is that of the outputs."""
    return math.prod(shape[:-1]), shape[-1] if shape else 1
