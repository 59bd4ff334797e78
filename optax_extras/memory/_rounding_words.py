"""Random words to round the leaves of a tree with."""

from collections.abc import Sequence
from typing import Any

import jax

from optax_extras._core import counters


def rounding_words(
    key: jax.Array, step: jax.Array, paths: Sequence[Any], stream: str
) -> dict[int, jax.Array]:
    """The words of leaves at a step, uint32[2], by their places.

    Args:
      key: uint32[2].
      step: int32[].
      paths: those of all leaves, None in place of those that are not rounded.
      stream: a name for the purpose.
    """
    places = [i for i, path in enumerate(paths) if path is not None]
    if not places:
        return {}
    words = counters.leaf_words(key, step, [paths[i] for i in places], step, stream)
    return dict(zip(places, words, strict=True))
