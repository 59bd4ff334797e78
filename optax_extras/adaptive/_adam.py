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


def step_leaf(
    gradient: Any, mu: jax.Array, nu: jax.Array, by: Scalars
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One step of Adam on one leaf: (update, new mu, new nu)."""
    dtype = jnp.result_type(gradient)
    compute = dtypes.compute_dtype(dtype, mu.dtype, nu.dtype)
    real = dtypes.real_dtype(compute)
    b1, mu_weight, b2, nu_weight, eps, eps_root = (scalars.scalar(x, real) for x in by)
    g = jnp.asarray(gradient).astype(compute)
    m = leaves.by_part(lambda m, g: b1 * m + (1 - b1) * g, mu.astype(compute), g)
    s = b2 * nu.astype(real) + (1 - b2) * leaves.squared_magnitude(g)
    scale = smooth.root(s / nu_weight + eps_root) + eps
    update = leaves.by_part(lambda m: (m / mu_weight) / scale, m)
    return update.astype(dtype), m.astype(mu.dtype), s.astype(nu.dtype)
