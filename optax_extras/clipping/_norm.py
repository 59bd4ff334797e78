"""Updates scaled so that their norm is at most a number."""

from typing import Any

import jax
import jax.numpy as jnp

from optax_extras._core import leaves


def clipped(updates: Any, norm: jax.Array, largest: jax.Array) -> Any:
    """The updates, scaled to the norm `largest` if theirs is above it.

    Their bits stay where it is not, or where it is not finite.
    """
    is_above = jnp.isfinite(norm) & (norm > largest)
    scale = jnp.where(is_above, largest / jnp.where(is_above, norm, 1), 1)
    return leaves.map_gradients(lambda g: leaves.scaled(g, scale), updates)
