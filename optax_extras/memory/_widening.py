"""Half-precision leaves as float32, and back."""

from typing import Any

import jax
import jax.numpy as jnp

from optax_extras._core.dtypes import compute_dtype
from optax_extras._core.leaves import map_gradients


def widened(tree: Any) -> Any:
    """The leaves in float32 or wider."""

    def widen(x: Any) -> Any:
        dtype = jnp.result_type(x)
        if isinstance(x, jax.ShapeDtypeStruct):
            return x.update(dtype=compute_dtype(dtype))
        return jnp.asarray(x).astype(compute_dtype(dtype))

    return jax.tree.map(widen, tree)


def narrowed(updates: Any, like: Any) -> Any:
    """Updates in the dtypes of the leaves that they are for."""
    return map_gradients(lambda u, p: u.astype(jnp.result_type(p)), updates, like)
