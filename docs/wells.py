"""Functions of two variables with a poor and a good minimum, for docs/evidence.py."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from optax_extras.tasks import Goal, Task, batches_of_step


def two_minima(
    name: str, value: Callable[[jax.Array], jax.Array], start: float, sign: float
) -> Task:
    """A function of two variables, started near its poorer minimum at (start, 0)."""
    centre = jnp.array([start, 0.0])
    return Task(
        name,
        lambda key: centre + 0.1 * jax.random.normal(key, (2,)),
        batches_of_step(lambda key, step: step),
        lambda p, batch, key: value(p),
        lambda p: {"value": value(p), "escaped": 1.0 * (sign * p[0] > 0)},
        Goal("value"),
    )


def double_well() -> Task:
    """Double well (x² − 1)² / 4 + x / 10 + y² / 2, with steep walls."""
    return two_minima(
        "double-well",
        lambda p: (p[0] ** 2 - 1) ** 2 / 4 + p[0] / 10 + p[1] ** 2 / 2,
        start=0.94,
        sign=-1.0,
    )


def two_wells() -> Task:
    """Gaussian wells of depth 0.2 and 0.6 in a shallow bowl."""

    def well(p: jax.Array, x: float, depth: float) -> jax.Array:
        return depth * jnp.exp(-2 * ((p[0] - x) ** 2 + p[1] ** 2))

    return two_minima(
        "two-wells",
        lambda p: 0.1 * jnp.sum(p**2) - well(p, -1.0, 0.2) - well(p, 1.0, 0.6),
        start=-0.75,
        sign=1.0,
    )
