"""Which arrays of a state are coded, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jax.tree_util import GetAttrKey

from optax_extras._core import counters
from optax_extras._core.opaque import barrier
from optax_extras._core.patterns import compile_patterns, path_text
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
    compiled = compile_patterns("codecs", codecs)
    return dict(zip(compiled, codecs.values(), strict=True))


class Coding(NamedTuple):
    """How an array of a state is coded."""

    path: Any
    shape: tuple[int, ...]
    dtype: Any
    codec: Codec

    def encode(self, x: Value, words: jax.Array) -> Any:
        """The code of the array.

        Args:
          x: the array.
          words: its random words, uint32[2].
        """
        value = self._real(x.value)
        statistics = barrier(self.codec.statistics(self._real(x.again)))
        each = counters.hashed_words(words, value.shape, explicit_sharding(value))
        # Behind a barrier, XLA reads what was written, and does not compute it again.
        return barrier(self.codec.encode(value, statistics, each))

    def decode(self, code: Any) -> jax.Array:
        """The array that a code stands for."""
        if not jnp.issubdtype(self.dtype, jnp.complexfloating):
            return self.codec.decode(code, self.shape).astype(self.dtype)
        parts = self.codec.decode(code, (2, *self.shape))
        return lax.complex(parts[0], parts[1]).astype(self.dtype)

    def _real(self, x: jax.Array) -> jax.Array:
        """The array in float32, a complex one as its two parts."""
        if not jnp.issubdtype(self.dtype, jnp.complexfloating):
            return x.astype(jnp.float32)
        parts = jnp.stack([x.real, x.imag]).astype(jnp.float32)
        sharding = explicit_sharding(x)
        if sharding is None:
            return parts
        spec = PartitionSpec(None, *sharding.spec)
        placed: jax.Array = jax.sharding.reshard(
            parts, NamedSharding(sharding.mesh, spec)
        )
        return placed

    def value(self, code: Any) -> Value:
        """The same, computed again from the code behind a barrier."""
        return Value(self.decode(code), lambda: self.decode(barrier(code)))


def codings_of(state: Any, params: Any, codecs: Codecs) -> list[Coding | None]:
    """How each leaf of a state is coded, or None.

    Args:
      state: the state, or the shapes and dtypes of its arrays.
      params: the parameters that it is of, which may have no leaves.
      codecs: what `check_codecs` returned.

    Raises:
      ValueError: an expression is the first to match no array, though there are
        parameters, and arrays of real or complex numbers in the state.
    """
    used: set[re.Pattern[str]] = set()
    codings: list[Coding | None] = []
    paths = []
    for path, leaf in jax.tree.leaves_with_path(state):
        codec = None
        # A placeholder of `optax.tree.map_params` has no dtype.
        dtype = getattr(leaf, "dtype", None)
        if dtype is not None and jnp.issubdtype(dtype, jnp.inexact):
            paths.append(path_text(path))
            first = next((p for p in codecs if _matches(p, path)), None)
            if first is not None:
                used.add(first)
                codec = codecs[first]
        codings.append(
            None if codec is None else Coding(path, leaf.shape, leaf.dtype, codec)
        )
    unused = [pattern.pattern for pattern in codecs if pattern not in used]
    if unused and paths and jax.tree.leaves(params):
        some = ", ".join(map(repr, paths[:5]))
        raise ValueError(
            "every expression of `codecs` must be the first to match an array of the"
            f" state, by its whole path or a field's name, but {unused[0]!r} is not:"
            f" the paths are {some}{', …' if len(paths) > 5 else ''}"
        )
    return codings


def _matches(pattern: re.Pattern[str], path: Any) -> bool:
    fields = [entry.name for entry in path if isinstance(entry, GetAttrKey)]
    return any(pattern.fullmatch(text) for text in (path_text(path), *fields))
