"""Products of two thin matrices, by one power iteration a step (PowerSGD)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from optax_extras._core import paths as leaf_paths
from optax_extras._core.placement import Layout, PerShard, placed, shards
from optax_extras.compressors._compressor import Compressor, Exchanged, Group, Site


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
            site = Site(layout.shape, (path[0], path[1]), jnp.int32(0), jnp.int32(0))
            shape = (_matrix(layout.shape)[1], self.rank)
            first = jax.random.normal(site.key(self.words), shape)
            number = shards([layout], layout.axes)
            spec = PartitionSpec(layout.axes or None)
            every = jnp.broadcast_to(first, (number, *shape))
            values.append(placed(every, spec, layouts, group.axis_name))
        return PerShard(values)

    def exchange(
        self,
        leaves: Sequence[jax.Array],
        sites: Sequence[Site],
        state: Any,
        finite: jax.Array,
        group: Group,
    ) -> Exchanged:
        """Two sums over the workers, of P = M Q and of Mᵀ P̂."""
        if len(leaves) != len(state.value):
            raise ValueError(
                f"`updates` must have a gradient for each of the {len(state.value)}"
                f" matrices that are compressed, got {len(leaves)}: without `feedback`,"
                " none may be None"
            )
        matrices = [leaf.reshape(_matrix(leaf.shape)) for leaf in leaves]
        lefts = [m @ q[0] for m, q in zip(matrices, state.value, strict=True)]
        flag = finite.astype(jnp.float32)[np.newaxis]
        *lefts, flags = group.sum_of([*lefts, flag])
        bases = [jnp.linalg.qr(p / group.workers)[0] for p in lefts]
        rights = [m.T @ p for m, p in zip(matrices, bases, strict=True)]
        rights = [q / group.workers for q in group.sum_of(rights)]
        means = [
            (p @ q.T).reshape(site.shape)
            for p, q, site in zip(bases, rights, sites, strict=True)
        ]
        kept = [q[np.newaxis] for q in rights]
        state = state._replace(value=kept)
        # Like what others send, which differs between workers.
        sent = [lax.pcast(x, group.axis_name, to="varying") for x in means]
        return Exchanged(means, sent, state, flags[0] == group.workers)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of a kernel as a matrix: its last axis is that of the outputs."""
    return math.prod(shape[:-1]), shape[-1] if shape else 1
