"""Means over workers: compressed for large leaves, dense for small ones."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from optax_extras._core import checks, paths
from optax_extras._core.axes import is_bound, may_vary, names_of, vary_over, varying
from optax_extras._core.joining import joined, parted
from optax_extras._core.leaves import is_none
from optax_extras._core.placement import layout_of
from optax_extras.communication._guards import (
    check_axis,
    check_local,
)
from optax_extras.compressors import Average, Compressor, Group, Site, Stack, stacks_of
from optax_extras.typing import AxisName

MIN_SIZE = 1024


class Local(NamedTuple):
    """What a worker has for a mean.

    Attributes:
      keys: paths of the leaves.
      leaves: in float32, times the weight; None for leaves without a gradient.
      weight: float32[], 0 for a worker that takes no part; None where all count the
        same.
    """

    keys: list[Any]
    leaves: list[Any]
    weight: Any

    def takes_part(self, new: Any, old: Any) -> Any:
        """What is new, unless this worker takes no part."""
        return new if self.weight is None else jnp.where(self.weight > 0, new, old)


class Averaged(NamedTuple):
    """Means of the leaves of a step.

    Attributes:
      means: float32 means over all workers, the same on every worker.
      left: what this worker's messages leave of its leaves, (1, *shape) each; None for
        dense ones.
      state: the compressor's new state.
      finite: whether all gradients of all workers are; bool[], the same on all.
    """

    means: list[jax.Array]
    left: list[Any]
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
    _saves: dict[Any, bool] = dataclasses.field(default_factory=dict, compare=False)

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
        if math.prod(shape) < max(self.min_size, 1):
            return False
        if shape not in self._saves:  # as a compressor may trace to find it out
            self._saves[shape] = self.compressor.saves(shape)
        return self._saves[shape]

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
        layouts = [layout_of(leaf) for _, leaf in flat]
        return self.compressor.init(layouts, [path for path, _ in flat], self.group)

    def local(self, updates: Any, weight: Any = None) -> "Local":
        """Checks and prepares the gradients of a worker.

        Args:
          updates: the gradients.
          weight: of this worker, one number; None where all count the same.
        """
        axis_name, fast = self.group.axis_name, self.fast_axis_name
        check_axis("axis_name", axis_name, self.group.workers)
        if fast is not None:
            check_axis("fast_axis_name", fast, None)
        checks.check_inexact("updates", updates)
        flat = jax.tree.leaves_with_path(updates, is_leaf=is_none)
        check_local(flat, (*names_of(axis_name), *names_of(fast)))
        keys = [path for path, _ in flat]
        leaves = [None if leaf is None else as_real(leaf) for _, leaf in flat]
        if weight is None:
            leaves = leaves if fast is None else lax.pmean(leaves, fast)
            return Local(keys, leaves, None)
        weight = weight_of(weight, names_of(axis_name))
        leaves = [None if x is None else weighted(x, weight) for x in leaves]
        if fast is not None:
            leaves, weight = lax.psum((leaves, weight), fast)
        return Local(keys, leaves, weight)

    def mean(
        self,
        keys: Sequence[Any],
        leaves: Sequence[jax.Array],
        state: Any,
        step: jax.Array,
        weight: Any = None,
    ) -> Averaged:
        """The means of leaves over the workers.

        Args:
          keys: paths of the leaves.
          leaves: float32 arrays of this worker, with an axis of one before the leaf's
            own, (1, *shape) each.
          state: the compressor's state.
          step: number of the step; int32[].
          weight: by which the leaves are multiplied, float32[]; None for 1.
        """
        group = dataclasses.replace(self.group, weight=weight)
        finite = jnp.bool(True) if weight is None else jnp.isfinite(weight)
        means: list[Any] = [None] * len(leaves)
        left: list[Any] = [None] * len(leaves)
        large = [i for i, x in enumerate(leaves) if self.compresses(x.shape[1:])]
        small = [i for i in range(len(leaves)) if i not in large]
        flat = [leaves[i].reshape(-1) for i in small]
        if flat:
            finite = finite & is_finite(joined(flat))
        flags = []
        if large:
            stacks = self._stacks(
                [keys[i] for i in large], [leaves[i] for i in large], step
            )
            for stack in stacks:
                finite = finite & is_finite(stack.x)
            found = self.compressor.exchange(stacks, state, finite, group)
            state = found.state
            flags.append(found.finite)
            for stack, *pair in zip(stacks, found.means, found.left, strict=True):
                ones = [1] * len(stack.numbers)
                for number, mean, rest in zip(
                    stack.numbers, *(parted(x, ones) for x in pair), strict=True
                ):
                    means[large[number]], left[large[number]] = mean[0], rest
        if small or not large:
            sums, flag, group = group.sum_with_report(
                [leaves[i] for i in small], finite
            )
            flags.append(flag)
            for i, total in zip(small, sums, strict=True):
                means[i] = total[0] / group.total
        everywhere = agreed(jnp.all(jnp.stack(flags)), self.group.axis_name)
        means, left = (
            [_as_same(x, leaf) for x, leaf in zip(some, leaves, strict=True)]
            for some in (means, left)
        )
        return Averaged(means, left, state, everywhere)

    def _stacks(
        self, keys: Sequence[Any], leaves: Sequence[jax.Array], step: jax.Array
    ) -> list[Stack]:
        """The leaves that are compressed, by their shapes."""
        words = paths.hash_paths("communication", list(keys)).T
        worker = lax.axis_index(self.group.axis_name)
        stacks = []
        for numbers in stacks_of([x.shape[1:] for x in leaves]):
            shape = leaves[numbers[0]].shape[1:]
            site = Site(shape, jnp.asarray(words[numbers]), step, worker)
            x = joined([leaves[i] for i in numbers])
            stacks.append(Stack(x, site, tuple(numbers)))
        return stacks


def weight_of(weight: Any, names: Sequence[Any] = ()) -> jax.Array:
    """A worker's weight, float32[], made to vary over axes; NaN if it is below 0."""
    value = jnp.asarray(weight)
    if value.size != 1 or jnp.iscomplexobj(value):
        raise ValueError(
            "`weight` must be one real number for each worker, got an array of the"
            f" shape {value.shape} and dtype {value.dtype} inside of `jax.shard_map`"
        )
    value = vary_over(value.reshape(()).astype(jnp.float32), names)
    return jnp.where(value >= 0, value, jnp.nan)


def weighted(x: jax.Array, weight: jax.Array) -> jax.Array:
    """An array times a weight, and zeros for a weight of 0, whatever is in it."""
    return jnp.where(weight == 0, 0, weight * x)


def agreed(flag: jax.Array, axis_name: AxisName) -> jax.Array:
    """Whether a flag holds on all shards of the parameters, so that they skip together.

    Args:
      flag: bool[].
      axis_name: the axis of the workers, along which it may differ.
    """
    others = tuple(sorted(may_vary(flag) - {*names_of(axis_name)}, key=str))
    return lax.pmin(flag.astype(jnp.int32), others) == 1 if others else flag


def _as_same(x: Any, leaf: jax.Array) -> Any:
    """A result, the same along the axes that its leaf is the same along.

    It went through one buffer with leaves that are sharded along them, so that JAX does
    not know.
    """
    unknown = () if x is None else tuple(varying(x) - varying(leaf))
    return lax.pmax(x, unknown) if unknown else x


def is_finite(x: jax.Array) -> jax.Array:
    """Whether all numbers are; bool[]."""
    # Both ends tell, and take XLA one pass each without a temporary array.
    return jnp.isfinite(x.max(initial=0)) & jnp.isfinite(x.min(initial=0))


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
