"""Arrays joined to one, and parted again, at a low cost of compilation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def joined(arrays: Sequence[jax.Array]) -> jax.Array:
    """The arrays, one after another along their first axis."""
    if len(arrays) == 1:
        return arrays[0]
    # Through the barrier, XLA does not split a reduction of it up into one for each.
    whole: jax.Array = lax.optimization_barrier(jnp.concatenate(arrays))
    return whole


def parted(whole: jax.Array, lengths: Sequence[int], axis: int = 0) -> list[jax.Array]:
    """The arrays of these lengths that `joined` joined, or others along an axis."""
    if len(lengths) == 1:
        return [whole]
    if whole.shape[axis] >= 2**31:  # beyond the variables below
        return list(lax.split(whole, lengths, axis))
    # XLA compiles one kernel for all parts of a length that start at a variable; where
    # each starts at a constant of its own, one for each.
    starts = [jnp.int32(end) for end in np.cumsum([0, *lengths[:-1]])]
    starts = lax.optimization_barrier(starts)
    return [
        lax.dynamic_slice_in_dim(whole, start, length, axis)
        for start, length in zip(starts, lengths, strict=True)
    ]
