"""Products of two thin matrices, by one power iteration a step (PowerSGD)."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from optax_extras._core import paths as leaf_paths
from optax_extras._core.joining import parted
from optax_extras._core.placement import Layout, PerShard, axes_of, placed, shards
from optax_extras.compressors._compressor import (
    Compressor,
    Exchanged,
    Site,
    Stack,
    stacks_of,
)
from optax_extras.compressors._group import Group
from optax_extras.compressors._matrices import matrix_of

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
        a, b = matrix_of(shape)
        return len(shape) > 1 and self.rank * (a + b) < a * b / 2

    def init(
        self, layouts: Sequence[Layout], paths: Sequence[Any], group: Group
    ) -> Any:
        """The first right factors, from the key; the same on all workers."""
        words = leaf_paths.hash_paths("low_rank", list(paths)).T
        # One or more elements, because checkpoints cannot hold an empty array.
        firsts = [jnp.zeros(1, jnp.float32)]
        for i in itertools.chain(*stacks_of([one.shape for one in layouts])):
            shape, start = layouts[i].shape, jnp.int32(0)
            key = Site(shape, jnp.array(words[i]), start, start).key(self.words)
            size = matrix_of(shape)[1] * self.rank
            firsts.append(jax.random.normal(key, (size,), jnp.float32))
        axes = axes_of(layouts)
        first = jnp.concatenate(firsts)
        every = jnp.broadcast_to(first, (shards(layouts, axes), *first.shape))
        spec = PartitionSpec(axes or None)
        return PerShard(placed(every, spec, layouts, group.axis_name))

    def exchange(
        self, stacks: Sequence[Stack], state: Any, finite: jax.Array, group: Group
    ) -> Exchanged:
        """Two sums over the workers, of P = M Q and of Mᵀ P̂."""
        matrices = [s.x.reshape(-1, *matrix_of(s.site.shape)) for s in stacks]
        shapes = [(len(m), m.shape[2], self.rank) for m in matrices]
        sizes = [math.prod(shape) for shape in shapes]
        if 1 + sum(sizes) != state.value.shape[1]:
            raise ValueError(
                f"`updates` must have a gradient for each of the matrices that are"
                f" compressed, whose factors have {state.value.shape[1] - 1} elements,"
                f" got some for {sum(sizes)}: without `feedback`, none may be None"
            )
        first, *flat = parted(state.value[0], [1, *sizes])
        rights = [q.reshape(shape) for q, shape in zip(flat, shapes, strict=True)]
        lefts, everywhere, group = group.sum_with_report(
            list(map(_times, matrices, rights)), finite
        )
        bases = [jnp.linalg.qr(p / group.total)[0] for p in lefts]
        sums = group.sum_of(list(map(_transposed_times, matrices, bases)))
        rights = [q.swapaxes(1, 2) / group.total for q in sums]
        means = [
            _product(p, q, stack.site.shape)
            for p, q, stack in zip(bases, rights, stacks, strict=True)
        ]
        share = 1 if group.weight is None else group.weight
        left = [s.x - share * mean for s, mean in zip(stacks, means, strict=True)]
        kept = jnp.concatenate([first, *(q.reshape(-1) for q in rights)])
        state = state._replace(value=kept[np.newaxis])
        # Norms of columns may overflow, and would be in the factors from then on.
        return Exchanged(means, left, state, everywhere & jnp.all(jnp.isfinite(kept)))


def _times(matrices: jax.Array, rights: jax.Array) -> jax.Array:
    """M Q of each matrix, (m, a, r), over a power of two that is as large as Q."""
    # Only what P spans counts, and M times the Q that it gave would overflow soon.
    _, exponent = jnp.frexp(jnp.abs(rights).max(axis=(1, 2), keepdims=True))
    rights = jnp.ldexp(rights, -exponent)
    return jnp.einsum("mab,mbr->mar", matrices, rights)


def _transposed_times(matrices: jax.Array, lefts: jax.Array) -> jax.Array:
    """Pᵀ M of each matrix, (m, r, b)."""
    # Not Mᵀ P, for which XLA transposes the matrices in memory.
    return jnp.einsum("mar,mab->mrb", lefts, matrices)


def _product(lefts: jax.Array, rights: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """P Qᵀ of each pair, (m, *shape)."""
    if lefts.shape[-1] > _SUMMED:
        return jnp.einsum("mar,mbr->mab", lefts, rights).reshape(-1, *shape)
    ones = (1,) * (len(shape) - 1)
    total = jnp.float32(0)
    for p, q in zip(lefts.transpose(2, 0, 1), rights.transpose(2, 0, 1), strict=True):
        of_rows = p.reshape(-1, *shape[:-1], 1)
        total = total + of_rows * q.reshape(-1, *ones, shape[-1])
    return total
