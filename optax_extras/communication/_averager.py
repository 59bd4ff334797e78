"""Means over workers: compressed for large leaves, dense for small ones."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optax_extras._core import checks, paths
from optax_extras._core.leaves import is_none
from optax_extras._core.placement import layout_of
from optax_extras.communication._guards import (
    check_axis,
    check_local,
    is_bound,
    names_of,
    varying,
)
from optax_extras.compressors import Average, Compressor, Group, Site
from optax_extras.typing import AxisName

MIN_SIZE = 1024


class Averaged(NamedTuple):
    """Means of the leaves of a step.

    Attributes:
      means: float32 means over all workers, the same on every worker.
      sent: what this worker's messages stand for; None for dense leaves.
      state: the compressor's new state.
      finite: whether all gradients of all workers are; bool[], the same on all.
    """

    means: list[jax.Array]
    sent: list[jax.Array | None]
    state: Any
    finite: jax.Array


@dataclasses.dataclass(frozen=True)
class Averager:
    """The mean over workers of what each of them sends.

    Attributes:
      compressor: how large leaves are sent.
      group: the workers.
      min_size: leaves of fewer elements are averaged densely.
      fast_axis_name: axes over which dense means are taken first.
    """

    compressor: Compressor
    group: Group
    min_size: int
    fast_axis_name: AxisName | None

    @classmethod
    def make(
        cls,
        compressor: Any,
        axis_name: AxisName,
        workers: Any,
        average: Average = "all",
        min_size: Any = MIN_SIZE,
        fast_axis_name: AxisName | None = None,
    ) -> "Averager":
        """Checks the arguments."""
        if not isinstance(compressor, Compressor):
            raise TypeError(
                "`compressor` must be one of `optax_extras.compressors`, such as"
                f" top_k(0.01), got {compressor!r}"
            )
        checks.choice("average", average, ("all", "senders"))
        group = Group(
            axis_name,
            checks.positive_integer("workers", workers),
            average,
        )
        if isinstance(min_size, bool) or not isinstance(min_size, int) or min_size < 0:
            raise ValueError(f"`min_size` must be an int >= 0, got {min_size!r}")
        return cls(compressor, group, min_size, fast_axis_name)

    def compresses(self, shape: tuple[int, ...]) -> bool:
        """Whether leaves of a shape are compressed."""
        return math.prod(shape) >= max(self.min_size, 1) and self.compressor.saves(
            shape
        )

    def large(self, params: Any) -> Any:
        """The parameters that are compressed, with None for the others."""
        if is_bound(self.group.axis_name):
            raise ValueError(
                "`init` must be called outside of `jax.shard_map`, whose axis"
                f" {self.group.axis_name!r} is bound here: the state has a first axis"
                " for the workers, and `worker_specs` gives its `PartitionSpec`s"
            )
        return jax.tree.map(
            lambda p: p if self.compresses(layout_of(p).shape) else None, params
        )

    def init(self, large: Any) -> Any:
        """The compressor's state for the parameters that are compressed."""
        flat = jax.tree.leaves_with_path(large)
        if not flat:
            return ()
        keys, leaves = zip(*flat, strict=True)
        return self.compressor.init(list(map(layout_of, leaves)), keys, self.group)

    def local(self, updates: Any) -> tuple[list[Any], list[Any], jax.Array]:
        """Checks and prepares the gradients of a worker.

        Returns:
          Paths, float32 leaves (None for none), and whether all of them are finite.
        """
        axis_name, fast = self.group.axis_name, self.fast_axis_name
        check_axis("axis_name", axis_name, self.group.workers)
        if fast is not None:
            check_axis("fast_axis_name", fast, None)
        checks.check_inexact("updates", updates)
        flat = jax.tree.leaves_with_path(updates, is_leaf=is_none)
        check_local(flat, (*names_of(axis_name), *names_of(fast)))
        leaves = [None if leaf is None else as_real(leaf) for _, leaf in flat]
        if fast is not None:
            leaves = lax.pmean(leaves, fast)
        parts = [jnp.isfinite(leaf).all() for leaf in leaves if leaf is not None]
        finite = jnp.stack(parts).all() if parts else jnp.bool(True)
        return [path for path, _ in flat], leaves, finite

    def mean(
        self,
        keys: Sequence[Any],
        leaves: Sequence[jax.Array],
        state: Any,
        step: jax.Array,
        finite: jax.Array,
    ) -> Averaged:
        """The means of leaves over the workers.

        Args:
          keys: paths of the leaves.
          leaves: float32 arrays of this worker.
          state: the compressor's state.
          step: number of the step; int32[].
          finite: whether this worker's gradients are; bool[].
        """
        means: list[Any] = [None] * len(leaves)
        sent: list[Any] = [None] * len(leaves)
        large = [i for i, leaf in enumerate(leaves) if self.compresses(leaf.shape)]
        small = [i for i in range(len(leaves)) if i not in large]
        everywhere = None
        if large:
            words = paths.hash_paths("communication", [keys[i] for i in large]).T
            index = lax.axis_index(self.group.axis_name)
            sites = [
                Site(leaves[i].shape, (w[0], w[1]), step, index)
                for i, w in zip(large, words, strict=True)
            ]
            found = self.compressor.exchange(
                [leaves[i] for i in large], sites, state, finite, self.group
            )
            state, everywhere = found.state, found.finite
            for i, mean, own in zip(large, found.means, found.sent, strict=True):
                means[i], sent[i] = mean, own
        if small or everywhere is None:
            flag = finite.astype(jnp.float32)[np.newaxis]
            *sums, flags = self.group.sum_of([*(leaves[i] for i in small), flag])
            for i, total in zip(small, sums, strict=True):
                means[i] = total / self.group.workers
            everywhere = flags[0] == self.group.workers
        # Shards of the parameters along other axes skip a step together.
        if others := tuple(varying(everywhere)):
            everywhere = lax.pmin(everywhere.astype(jnp.int32), others) == 1
        return Averaged(means, sent, state, everywhere)


def as_real(x: Any) -> Any:
    """A leaf in float32; the two parts of a complex one along a first axis."""
    if jnp.iscomplexobj(x):
        x = jnp.stack([x.real, x.imag])
    return jnp.asarray(x).astype(jnp.float32)


def like(mean: jax.Array, leaf: Any) -> jax.Array:
    """A mean in the dtype of a leaf, and complex where that is."""
    if jnp.iscomplexobj(leaf):
        return lax.complex(mean[0], mean[1]).astype(leaf.dtype)
    return mean.astype(jnp.result_type(leaf))
