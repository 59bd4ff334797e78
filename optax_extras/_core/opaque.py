"""Values that XLA computes once, instead of once in each consumer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# XLA:CPU of older versions removes barriers before it fuses.
_BARRIERS_HOLD = jax.__version_info__ >= (0, 11, 1)


def barrier(tree: Any) -> Any:
    """The same arrays, of which XLA does not know how they were computed."""
    return lax.optimization_barrier(tree)  # type: ignore[no-untyped-call]


def opaque(function: Callable[..., Any], count: jax.Array, *operands: Any) -> Any:
    """`function(*operands)`, computed once whatever the number of its consumers.

    XLA counts arithmetic as free and copies it into the kernel of every consumer, which
    for a Gaussian repeats some hundred instructions for each element. Where XLA:CPU
    ignores barriers, an always-true `lax.cond` on `count` >= 0 has the same effect.

    Args:
      function: makes a tree of arrays.
      count: int32[], at least 0, which XLA cannot know.
      *operands: trees of arrays.
    """
    if _BARRIERS_HOLD:
        return jax.tree.map(barrier, function(*operands))

    def zeros(*operands: Any) -> Any:
        shapes = jax.eval_shape(function, *operands)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return lax.cond(count >= 0, function, zeros, *operands)
