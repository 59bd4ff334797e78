"""Makes XLA compute a value once, instead of once in each consumer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# Older versions of XLA:CPU remove barriers before fusion; and all arrays behind one
# vary over the axes of each, in a `jax.shard_map`.
_BARRIERS_HOLD = jax.__version_info__ >= (0, 11, 1)


def barrier(tree: Any) -> Any:
    """The same arrays behind a barrier, across which XLA does not fuse.

    None of them is there before all are, if barriers hold.
    """
    if _BARRIERS_HOLD:
        return lax.optimization_barrier(tree)
    return jax.tree.map(lax.optimization_barrier, tree)


def opaque(function: Callable[..., Any], count: jax.Array, *operands: Any) -> Any:
    """Returns `function(*operands)`, computed once for any number of consumers.

    XLA's fusion counts arithmetic as free and copies it into the kernel of every
    consumer. For a Gaussian that repeats about 200 instructions per element. Versions
    of XLA:CPU that ignore barriers need an always-true `lax.cond` (`count` >= 0), which
    has the same effect.

    Args:
      function: returns a tree of arrays.
      count: int32[], at least 0; XLA cannot infer this bound.
      *operands: trees of arrays.
    """
    if _BARRIERS_HOLD:
        return jax.tree.map(barrier, function(*operands))

    return apart(function, count, *operands)


def apart(function: Callable[..., Any], count: jax.Array, *operands: Any) -> Any:
    """Returns `function(*operands)`, of which XLA shares nothing with what is around.

    A reduction of XLA:CPU reads from memory what it shares with another kernel, and be
    it a number broadcast to the shape of an array.

    Args:
      function: returns a tree of arrays.
      count: int32[], at least 0; XLA cannot infer this bound.
      *operands: trees of arrays.
    """

    # XLA drops the arithmetic here; the call gives the zeros their sharding and axes.
    def zeros(*operands: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, function(*operands))

    return lax.cond(count >= 0, function, zeros, *operands)
