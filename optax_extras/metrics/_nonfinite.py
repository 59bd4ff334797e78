"""Which leaf is the first that is not finite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optax_extras._core.axes import varying
from optax_extras.metrics._metric import Metric, Step, stateless, unmeasured


def first_nonfinite() -> Metric:
    """Index of the first leaf of the gradients with a NaN or an infinity.

    −1 means that all are finite, or that nothing was measured yet. The index is into
    the leaves of the parameters, in the order of `jax.tree.leaves`;
    ``optax_extras.leaf_paths(params)[index]`` is the leaf's path. If ``update`` is not
    given the parameters, it is into the leaves of the gradients.

    Returns:
      A metric named ``first_nonfinite``, an int32.
    """
    return stateless("first_nonfinite", lambda params: unmeasured(int), _measure)


def _measure(step: Step) -> jax.Array:
    listed = step.by_leaf(step.grads)
    if not listed:
        return jnp.full((), -1, jnp.int32)
    bad = jnp.stack([_is_bad(x, step) for x in listed])
    first = jnp.argmax(bad).astype(jnp.int32)
    return jnp.where(jnp.any(bad), first, jnp.int32(-1))


def _is_bad(leaf: Any, step: Step) -> jax.Array:
    """Whether a leaf has a number that is not finite, in any of its shards."""
    if leaf is None:
        return jnp.zeros((), bool)
    parts = (leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,)
    # A maximum is NaN if any element is; `jnp.all` would write a bool for each.
    largest = [jnp.max(jnp.abs(x), initial=0) for x in parts]
    found: jax.Array = ~jnp.all(jnp.isfinite(jnp.stack(largest)))
    axes = tuple(sorted(varying(leaf) - step.own_axes, key=str))
    if not axes:
        return found
    anywhere: jax.Array = lax.pmax(found.astype(jnp.int32), axes) > 0
    return anywhere
