"""One step of Adam with decays that vary (Kingma & Ba 2014, arXiv 1412.6980)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_extras._core import dtypes, leaves, scalars, smooth


class Scalars(NamedTuple):
    """Scalars of one step of Adam on one leaf.

    `b1` and `mu_weight` are 0-d, or have the leaf's shape if the scope is "element".
    """

    b1: Any  # decay of the first moment
    mu_weight: Any  # divisor that debiases the first moment
    b2: Any  # decay of the second moment
    nu_weight: Any  # divisor that debiases the second moment
    eps: Any  # added to the root of the second moment
    eps_root: Any  # added under that root
    # Shares of the averages in the numerator and under the root; that of the gradient
    # is the rest. None is 1; a rest of 0 would turn an infinite gradient into NaN.
    mu_share: Any = None
    nu_share: Any = None


def step_leaf(
    gradient: Any, mu: jax.Array, nu: jax.Array, by: Scalars
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One step of Adam on one leaf: (update, new mu, new nu)."""
    dtype = jnp.result_type(gradient)
    compute = dtypes.compute_dtype(dtype, mu.dtype, nu.dtype)
    real = dtypes.real_dtype(compute)
    by = jax.tree.map(lambda x: scalars.scalar(x, real), by)
    b1, mu_weight, b2, nu_weight, eps, eps_root, mu_share, nu_share = by
    g = jnp.asarray(gradient).astype(compute)
    m = leaves.by_part(lambda m, g: b1 * m + (1 - b1) * g, mu.astype(compute), g)
    s = b2 * nu.astype(real) + (1 - b2) * leaves.squared_magnitude(g)
    square = _mixed(s, nu_weight, leaves.squared_magnitude(g), nu_share)
    scale = smooth.root(square + eps_root) + eps
    stored = dtypes.as_stored(m, mu.dtype, dtype)
    update = leaves.by_part(
        lambda m, g: _mixed(m, mu_weight, g, mu_share) / scale, stored, g
    )
    return update.astype(dtype), m.astype(mu.dtype), s.astype(nu.dtype)


def _mixed(total: jax.Array, weight: Any, current: jax.Array, share: Any) -> Any:
    """The average total / weight, or its mean with the current value by shares."""
    if share is None:
        return total / weight
    return (share / weight) * total + (1 - share) * current
