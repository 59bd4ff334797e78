"""Functions with finite derivatives at 0, where those of their formulas are NaN.

Derivatives with respect to hyperparameters pass through them, and meet zeros: of a
gradient, of a noise that is switched off, of a schedule that starts or ends at 0.
"""

from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_jvp
def root(x: jax.Array) -> jax.Array:
    """√x, with the derivative 0 at 0.

    Where x = y² or x = 0·y, that is a derivative with respect to y; `jnp.sqrt` gives
    0·∞ there, which is NaN.
    """
    return jnp.sqrt(x)


@root.defjvp
def _root_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    y = root(x)
    is_zero = y == 0
    return y, jnp.where(is_zero, 0, dx / (2 * jnp.where(is_zero, 1, y)))


def debiasing_weight(decay: jax.Array, steps: jax.Array) -> jax.Array:
    """1 − decay^steps, computed without cancellation for a decay near 1."""
    return _one_minus_power(decay, steps.astype(decay.dtype))


def next_weight(decay: jax.Array, weight: jax.Array) -> jax.Array:
    """1 − ∏ decays after a step more, from what it was, also for a decay near 1."""
    return decay * weight + (1 - decay)


@jax.custom_jvp
def _one_minus_power(x: jax.Array, n: jax.Array) -> jax.Array:
    # 1 − eʸ = −2t / (1 − t) with t = tanh(y / 2), which takes less time than `expm1`.
    t = jnp.tanh(n * jnp.log(x) / 2)
    return -2 * t / (1 - t)


@_one_minus_power.defjvp
def _one_minus_power_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """At 0, the logarithm has no derivative, but the power has one."""
    (x, n), (dx, _) = primals, tangents
    return _one_minus_power(x, n), -n * x ** (n - 1) * dx
