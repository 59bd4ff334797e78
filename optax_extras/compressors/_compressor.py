"""What a compressor is, and the leaves that it is given."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optax_extras._core.axes import vary_over, varying
from optax_extras._core.joining import parted
from optax_extras._core.placement import Layout
from optax_extras.compressors._group import Group

# Messages of so many workers are decoded without a loop, which would copy the sum.
UNROLL = 8


# Leaves of so many elements are compressed by themselves.
ALONE = 2**20


class Site(NamedTuple):
    """A leaf at a step, as the methods of a `Compressor` see it.

    Attributes:
      shape: the leaf's shape on a worker.
      path: uint32[2], which identifies the leaf's path, the same on every worker.
      step: number of the step; int32[], the same on every worker.
      worker: index of this worker; int32[].
    """

    shape: tuple[int, ...]
    path: jax.Array
    step: jax.Array
    worker: jax.Array

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def key(self, words: Any, *, of_worker: bool = False) -> jax.Array:
        """A typed key of the leaf and the step, for `jax.random`.

        Args:
          words: uint32[2], from which the keys of all leaves and steps come.
          of_worker: whether workers get different keys.
        """
        key = jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
        parts = [self.step, self.path[0], self.path[1]]
        parts += [self.worker] if of_worker else []
        for part in parts:
            key = jax.random.fold_in(key, part)
        return key


def stacks_of(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Which leaves are compressed together: those of one shape, unless it is large.

    Args:
      shapes: the shapes of the leaves on a worker.

    Returns:
      For each stack, the numbers of its leaves.
    """
    stacks: dict[Any, list[int]] = {}
    for i, shape in enumerate(shapes):
        # A large leaf is alone, as copying it takes longer than what a stack saves.
        alone = i if math.prod(shape) >= ALONE else None
        stacks.setdefault((shape, alone), []).append(i)
    return list(stacks.values())


class Stack(NamedTuple):
    """The leaves of one shape, which are compressed together.

    XLA compiles their selection, rounding or decoding once, and not for each leaf.

    Attributes:
      x: this worker's leaves, float32[m, *shape].
      site: where they are; its ``path`` is uint32[m, 2].
      numbers: which of the compressed leaves they are, m of them.
    """

    x: jax.Array
    site: Site
    numbers: tuple[int, ...]

    def map(self, function: Callable[..., Any], *arrays: Any, axis: int = 0) -> Any:
        """Calls a function of arrays and a leaf's `Site` for each of the leaves.

        Args:
          function: its results are stacked along a first axis.
          *arrays: with an axis for the leaves.
          axis: number of that axis.
        """

        def one(path: jax.Array, *arrays: jax.Array) -> Any:
            return function(*arrays, self.site._replace(path=path))

        if len(self.numbers) > 1:
            axes = (0, *[axis] * len(arrays))
            return jax.vmap(one, in_axes=axes)(self.site.path, *arrays)
        # XLA compiles one leaf to less than a batch of one.
        of_leaf = [lax.squeeze(x, [axis]) for x in arrays]
        return one(self.site.path[0], *of_leaf)[np.newaxis]


class Exchanged(NamedTuple):
    """What an exchange gives, for each stack of leaves.

    Attributes:
      means: means over the workers, the same on every worker, (m, *shape) each.
      left: what this worker's own message leaves of its leaves, (m, *shape) each.
      state: the compressor's new state.
      finite: whether all gradients of all workers are, and what was computed of them;
        bool[], the same on all.
    """

    means: list[jax.Array]
    left: list[jax.Array]
    state: Any
    finite: jax.Array


class Compressor(abc.ABC):
    """A way to send leaves in fewer bytes, for `optax_extras.compressed_mean`.

    A compressor of your own needs `encode` and `decode`, which `jax.vmap` calls for all
    leaves of one shape. All messages of a step travel in one buffer of bytes, from
    every worker to every other, and the mean of what they stand for is taken in float32
    and in the order of the workers, so that all workers get the same bits.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_extras.compressors import Compressor, from_bytes, to_bytes
      >>> class Half(Compressor):
      ...     def encode(self, x, site):
      ...         return to_bytes(x.astype(jnp.float16))
      ...     def decode(self, data, site):
      ...         return from_bytes(data, site.shape, jnp.float16).astype(jnp.float32)
      >>> Half().saves((1000,))
      True
    """

    @abc.abstractmethod
    def encode(self, x: jax.Array, site: Site) -> jax.Array:
        """The message about a leaf, uint8[B]; B depends on the shape alone.

        Args:
          x: the leaf; float32, of the shape ``site.shape``.
          site: where the leaf is, and when.
        """

    @abc.abstractmethod
    def decode(self, data: jax.Array, site: Site) -> jax.Array:
        """What a message stands for: float32, of the shape ``site.shape``.

        Args:
          data: a message, from any worker.
          site: as for `encode`, but of the worker that decodes.
        """

    def saves(self, shape: tuple[int, ...]) -> bool:
        """Whether the message about a leaf is no longer than the leaf in float32."""
        return self.message_bytes(shape) <= 4 * math.prod(shape)

    def message_bytes(self, shape: tuple[int, ...]) -> int:
        """Length of the message about a leaf."""
        message = jax.eval_shape(
            lambda x, path, i: self.encode(x, Site(shape, path, i, i)),
            jax.ShapeDtypeStruct(shape, jnp.float32),
            jax.ShapeDtypeStruct((2,), jnp.uint32),
            jax.ShapeDtypeStruct((), jnp.int32),
        )
        return math.prod(message.shape)

    def limit(self, workers: int) -> float:
        """The largest magnitude of elements whose exchange cannot overflow."""
        # A value may be rounded up before the sum over the workers.
        return float(np.finfo(np.float32).max) / (2 * workers)

    def within_limit(self, stacks: Sequence[Stack], group: Group) -> jax.Array:
        """Whether all elements of this worker are; bool[]."""
        limit = np.float32(self.limit(group.workers))
        ends = [(x.max(initial=0), x.min(initial=0)) for x, *_ in stacks]
        return jnp.all(
            jnp.stack([(high <= limit) & (low >= -limit) for high, low in ends])
        )

    def init(
        self, layouts: Sequence[Layout], paths: Sequence[Any], group: Group
    ) -> Any:
        """The compressor's own state, for the parameters it is going to compress."""
        del layouts, paths, group
        return ()

    def mean(self, messages: jax.Array, site: Site, group: Group) -> jax.Array:
        """The mean of what the messages stand for.

        Args:
          messages: those of all workers about one leaf, uint8[N, B].
          site: where the leaf is, and when.
          group: the workers.
        """

        def add(total: jax.Array, message: jax.Array) -> tuple[jax.Array, None]:
            return total + self.decode(message, site), None

        zeros = vary_over(jnp.zeros(site.shape, jnp.float32), varying(messages))
        total, _ = lax.scan(add, zeros, messages, unroll=UNROLL)
        mean: jax.Array = total / group.total
        return mean

    def left(self, messages: jax.Array, stack: Stack) -> jax.Array:
        """What this worker's messages, uint8[m, B], leave of its leaves."""
        decoded: jax.Array = stack.map(self.decode, messages)
        return stack.x - decoded

    def exchange(
        self, stacks: Sequence[Stack], state: Any, finite: jax.Array, group: Group
    ) -> Exchanged:
        """Sends the leaves of this worker, and returns the means.

        Args:
          stacks: the leaves by shape, at least one.
          state: the compressor's state, from `init` or the last exchange.
          finite: whether all gradients of this worker are; bool[].
          group: the workers.
        """
        finite = finite & self.within_limit(stacks, group)
        messages = [stack.map(self.encode, stack.x) for stack in stacks]
        report = group.report(finite)
        gathered = group.gather(
            jnp.concatenate([*(part.reshape(-1) for part in messages), report])
        )
        lengths = [part.size for part in messages]
        end = sum(lengths)
        everywhere, group = group.heard(gathered[:, end:])
        sent = parted(gathered[:, :end], lengths, axis=1)
        means = [
            stack.map(
                lambda data, site: self.mean(data, site, group),
                data.reshape(group.workers, *part.shape),
                axis=1,
            )
            for stack, part, data in zip(stacks, messages, sent, strict=True)
        ]
        left = [self.left(*pair) for pair in zip(messages, stacks, strict=True)]
        return Exchanged(means, left, state, everywhere)
