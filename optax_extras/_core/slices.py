"""Functions of single slices, mapped over the slices of stacked arrays.

A slice is a leaf of its own, also for random numbers, which depend on the path of a
leaf: `path_words` gives every slice the words of its own path.
"""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from optax_extras._core import paths
from optax_extras._core.placement import explicit_sharding

# Those whose functions are being called, from the outermost to the innermost.
_OPEN: contextvars.ContextVar[tuple["Slices", ...]] = contextvars.ContextVar(
    "slices", default=()
)


@dataclasses.dataclass(frozen=True)
class _Axis:
    """The name of a mapped axis.

    JAX knows what it has traced by the names of the axes; with others for the same
    paths alone, no slices draw by the paths of others.
    """

    paths: tuple[Any, ...]
    number: int


@dataclasses.dataclass(frozen=True)
class Slices:
    """The slices of arrays along one or more first axes.

    Attributes:
      sizes: the numbers of slices along these axes.
      paths_of: from the path of a leaf, as the function of a slice sees it, to those of
        all slices, the last axis varying fastest.
    """

    sizes: tuple[int, ...]
    paths_of: Callable[[Any], Sequence[Any]]

    def map(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, mapped over the first axes of its arguments and results."""

        def of_a_slice(*arguments: Any) -> Any:
            with self._open():
                return function(*arguments)

        own_paths = tuple(self.paths_of(()))
        for number, size in reversed(list(enumerate(self.sizes))):
            name = _Axis(own_paths, number)
            of_a_slice = jax.vmap(of_a_slice, axis_name=name, axis_size=size)
        return of_a_slice

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        token = _OPEN.set((*_OPEN.get(), self))
        try:
            yield
        finally:
            _OPEN.reset(token)


def path_words(stream: str, of_leaves: Sequence[Any], like: Any) -> Any:
    """The two words of the path of each leaf, (2, leaves); of slices, their own.

    Args:
      stream: a name for the purpose.
      of_leaves: paths, as they are seen here.
      like: arguments of the function, of which each slice has its own: at least one
        that no transformation inside of it has replaced by a constant.
    """
    opened = _OPEN.get()
    # The slices that were opened last know the paths as they are seen here.
    every = [[path] for path in of_leaves]
    for one in reversed(opened):
        every = [
            [path for seen in some for path in one.paths_of(seen)] for some in every
        ]
    words = paths.hash_paths(stream, [path for some in every for path in some])
    if not opened:
        return words
    if not words.size:  # no slice, and no draw
        return jnp.zeros((2, len(of_leaves)), jnp.uint32)
    table = jnp.asarray(words.reshape(2, len(of_leaves), -1))
    return _column(table, _number(opened, like))


def with_own_keys(state: Any, like: Any) -> Any:
    """A state with typed keys that differ by slice, inside of a mapped function.

    `init` is given one key by its caller, for all slices.

    Args:
      state: what `init` made of a slice.
      like: the slice.
    """

    def fold(x: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key):
            return x
        return jax.random.fold_in(x, _number(_OPEN.get()[-1:], like))

    return jax.tree.map(fold, state)


def _number(opened: Sequence[Slices], like: Any) -> jax.Array:
    """The number of this slice, among those of slices that were opened last; int32[].

    It is that of `paths_of`, and as there the innermost slices vary slowest.
    """
    inside, number = 0, jnp.int32(0)
    for one in reversed(opened):
        levels = range(inside + len(one.sizes) - 1, inside - 1, -1)
        inside += len(one.sizes)
        for level, size in zip(levels, one.sizes, strict=True):
            number = number * jnp.int32(size) + _position(level)(like)
    return jnp.asarray(number)


@functools.cache
def _position(level: int) -> Callable[[Any], jax.Array]:
    """The position along a mapped axis, with so many inside of it, as int32[].

    `jax.lax.axis_index` would pass for an index along an axis of the mesh inside of
    `jax.shard_map`.
    """

    @custom_vmap
    def position(like: Any) -> jax.Array:
        del like
        return jnp.int32(0)

    @position.def_vmap
    def along(axis_size: int, is_batched: Any, like: Any) -> tuple[jax.Array, bool]:
        if level:
            inside = jax.tree.map(lambda x, b: x[0] if b else x, like, is_batched[0])
            return _position(level - 1)(inside), False
        return jnp.arange(axis_size, dtype=jnp.int32), True

    return position


def _column(table: jax.Array, index: jax.Array) -> jax.Array:
    """The entries of a table of uint32 at an index along its last axis."""
    if explicit_sharding(index) is None:
        return jnp.take(table, index, axis=-1)
    # JAX cannot gather where slices are sharded over an explicit axis.
    chosen = jnp.arange(table.shape[-1], dtype=jnp.int32) == index
    chosen = jnp.expand_dims(chosen, range(table.ndim - 1))
    return jnp.sum(jnp.where(chosen, table, 0), axis=-1, dtype=jnp.uint32)
