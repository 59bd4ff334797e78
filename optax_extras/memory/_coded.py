"""Which arrays of a state are coded, and how."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jax.tree_util import GetAttrKey

from optax_extras._core import counters
from optax_extras._core.opaque import barrier
from optax_extras._core.paths import owner
from optax_extras._core.patterns import compile_patterns, path_text, some_of
from optax_extras._core.placement import explicit_sharding
from optax_extras.codecs import Codec
from optax_extras.memory._storing import Value

Codecs = Mapping[re.Pattern[str], Codec | None]


def check_codecs(codecs: Any) -> Codecs:
    """Compiles the expressions that choose arrays, and checks their codecs."""
    if not isinstance(codecs, Mapping):
        raise TypeError(
            "`codecs` must be a mapping from regular expressions to codecs, such as"
            f" {{'nu': optax_extras.codecs.bfloat16()}}, got {codecs!r}"
        )
    for pattern, codec in codecs.items():
        if codec is not None and not isinstance(codec, Codec):
            raise TypeError(
                "`codecs` must map to codecs from `optax_extras.codecs` or to None, got"
                f" {codec!r} for {pattern!r}"
            )
        if codec is not None and type(codec).__hash__ is None:
            raise TypeError(
                "`codecs` must map to codecs that are hashable, such as frozen"
                f" dataclasses, got {codec!r} for {pattern!r}"
            )
    compiled = compile_patterns("codecs", codecs)
    return dict(zip(compiled, codecs.values(), strict=True))


class Coding(NamedTuple):
    """How an array of a state is coded."""

    path: Any
    like: jax.ShapeDtypeStruct
    codec: Codec

    def encode(self, x: Value, words: jax.Array) -> Any:
        """The code of the array.

        Args:
          x: the array.
          words: its random words, uint32[2].
        """
        value, statistics = self._real(x.value), ()
        if type(self.codec).statistics is not Codec.statistics:
            statistics = barrier(self.codec.statistics(self._real(x.again)))
        each = counters.hashed_words(words, value.shape, explicit_sharding(value))
        # Behind a barrier, XLA reads what was written, and does not compute it again.
        return barrier(self.codec.encode(value, statistics, each))

    def encode_alone(self, x: jax.Array, words: jax.Array) -> Any:
        """The code of an array, by one program for each codec and shape."""
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return _encoded(Coding((), like, self.codec), x, words)

    def decode(self, code: Any) -> jax.Array:
        """The array that a code stands for."""
        if self._is_complex:
            parts = self.codec.decode(code, (2, *self.like.shape))
            x = lax.complex(parts[0], parts[1])
        else:
            x = self.codec.decode(code, self.like.shape)
        sharding: Any = getattr(self.like, "sharding", None)
        own = explicit_sharding(x)
        # The codes of blocks that cross shards are not sharded as the array.
        if own is not None and isinstance(sharding, NamedSharding) and own != sharding:
            x = jax.sharding.reshard(x, NamedSharding(own.mesh, sharding.spec))
        return x.astype(self.like.dtype)

    def value(self, code: Any, like: Any = None) -> Value:
        """The array, which is computed again from the code behind a barrier.

        Args:
          code: of the array.
          like: what it was the code of, which may have another dtype.
        """

        def made(code: Any) -> jax.Array:
            x = self.decode(code)
            if like is None:
                return x
            x = x.real if self._is_complex and not jnp.iscomplexobj(like) else x
            return x.astype(like.dtype)

        return Value(made(code), lambda: made(barrier(code)))

    @property
    def _is_complex(self) -> bool:
        return bool(jnp.issubdtype(self.like.dtype, jnp.complexfloating))

    def _real(self, x: jax.Array) -> jax.Array:
        """The array in float32, a complex one as its two parts."""
        if jnp.iscomplexobj(x) and not self._is_complex:
            raise TypeError(
                "the state must keep its dtypes, but the array at"
                f" {path_text(self.path)!r} was {self.like.dtype} and is {x.dtype} now"
            )
        if not self._is_complex:
            return _narrow(x)
        parts = _narrow(jnp.stack([x.real, x.imag]))
        sharding = explicit_sharding(x)
        if sharding is None:
            return parts
        spec = PartitionSpec(None, *sharding.spec)
        placed: jax.Array = jax.sharding.reshard(
            parts, NamedSharding(sharding.mesh, spec)
        )
        return placed


@functools.partial(jax.jit, static_argnums=0)
def _encoded(coding: Coding, x: jax.Array, words: jax.Array) -> Any:
    return coding.encode(Value(x), words)


def _narrow(x: jax.Array) -> jax.Array:
    """Numbers in float32, where finite ones stay finite."""
    if x.dtype.itemsize > 4:
        most = np.finfo(np.float32).max
        x = jnp.where(jnp.isfinite(x), jnp.clip(x, -most, most), x)
    return x.astype(jnp.float32)


def codings_of(state: Any, params: Any, codecs: Codecs) -> list[Coding | None]:
    """How each leaf of a state is coded, or None.

    Args:
      state: shapes and dtypes of the arrays of the state.
      params: the parameters that it is of, which may have no leaves.
      codecs: what `check_codecs` returned.

    Raises:
      ValueError: an expression is the first to match no array, though there are
        parameters, and arrays to choose in the state.
    """
    own = {path: path for path, _ in jax.tree.leaves_with_path(params)}
    used: set[re.Pattern[str]] = set()
    codings: list[Coding | None] = []
    paths = []
    for path, leaf in jax.tree.leaves_with_path(state):
        codec = None
        # A placeholder of `optax.tree.map_params` has no dtype.
        dtype = getattr(leaf, "dtype", None)
        if dtype is not None and leaf.shape and jnp.issubdtype(dtype, jnp.inexact):
            paths.append(path_text(path))
            end = owner(path, own) or ()
            names = [path_text(path), *_fields(path[: len(path) - len(end)])]
            first = next((p for p in codecs if any(map(p.fullmatch, names))), None)
            if first is not None:
                used.add(first)
                codec = codecs[first]
        codings.append(None if codec is None else Coding(path, leaf, codec))
    unused = [pattern.pattern for pattern in codecs if pattern not in used]
    if unused and paths and jax.tree.leaves(params):
        raise ValueError(
            "every expression of `codecs` must be the first to match an array of the"
            f" state, by its whole path or a field's name, but {unused[0]!r} is not:"
            f" the paths are {some_of(paths)}"
        )
    return codings


def _fields(path: Any) -> list[str]:
    """The names of the fields on a path."""
    return [entry.name for entry in path if isinstance(entry, GetAttrKey)]
