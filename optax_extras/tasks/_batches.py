"""Sources of mini-batches: shuffled arrays, or a function of the step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Batches:
    """Source of mini-batches as two functions that JAX can trace.

    A training loop plans many steps at once, which shuffles once, and takes one
    mini-batch per step.

    Attributes:
      plan: maps a key, a first step (int32[]) and a number of steps to one entry per
        step, such as row indices, stacked along a leading axis. The entry of a step
        depends on the key and the step alone.
      take: maps the entry of a step to its mini-batch.
    """

    plan: Callable[[jax.Array, jax.Array, int], Any]
    take: Callable[[Any], Any]


def minibatches(arrays: Any, batch_size: int | None) -> Batches:
    """Mini-batches of the rows of arrays, sampled without replacement.

    Each epoch has its own order and drops the last, incomplete mini-batch.

    Args:
      arrays: tree of arrays whose leading axes hold the examples.
      batch_size: examples per mini-batch; None for all of them.

    Returns:
      A source of trees like ``arrays`` with ``batch_size`` rows.

    Raises:
      ValueError: the arrays differ in length, or ``batch_size`` is not between 1 and
        the number of examples.
    """
    lengths = {len(array) for array in jax.tree.leaves(arrays)}
    if len(lengths) != 1:
        raise ValueError(
            f"`arrays` must have one number of examples, got {sorted(lengths)}"
        )
    (size,) = lengths
    if batch_size is not None and not 1 <= batch_size <= size:
        raise ValueError(f"`batch_size` must be in [1, {size}], got {batch_size}")
    held = jax.tree.map(np.asarray, arrays)

    def plan(key: jax.Array, start: jax.Array, length: int) -> jax.Array:
        """Row indices, int32[length, batch_size]."""
        if batch_size is None:
            return jnp.tile(jnp.arange(size)[None], (length, 1))
        batches = size // batch_size
        first, skipped = jnp.divmod(start, batches)

        def epoch(number: jax.Array) -> jax.Array:
            order = jax.random.permutation(jax.random.fold_in(key, number), size)
            return order[: batches * batch_size].reshape(batches, batch_size)

        epochs = jax.vmap(epoch)(first + jnp.arange(-(-length // batches) + 1))
        rows = epochs.reshape(-1, batch_size)
        return jax.lax.dynamic_slice_in_dim(rows, skipped, length)

    def take(indices: jax.Array) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(x)[indices], held)

    return Batches(plan, take)


def batches_of_step(function: Callable[[jax.Array, jax.Array], Any]) -> Batches:
    """Mini-batches computed from the step.

    Args:
      function: maps a key, the same at every step, and the step (int32[]) to a
        mini-batch.
    """

    def plan(key: jax.Array, start: jax.Array, length: int) -> Any:
        steps = start + jnp.arange(length, dtype=jnp.int32)
        return jnp.broadcast_to(key, (length,)), steps

    return Batches(plan, lambda entry: function(*entry))
