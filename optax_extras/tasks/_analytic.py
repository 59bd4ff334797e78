"""Test functions with a known minimum and a chosen amount of noise."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras.tasks._batches import batches_of_step
from optax_extras.tasks._names import named
from optax_extras.tasks._task import Goal, Task


@named()
def quadratic(dimensions: int = 20, condition: float = 100.0) -> Task:
    """Quadratic ½ Σ aᵢ xᵢ² with curvatures aᵢ from 1/``condition`` to 1, log-spaced.

    Args:
      dimensions: number of parameters, at least 2.
      condition: ratio of the largest curvature to the smallest, at least 1.

    Returns:
      A task that starts at a random point of the unit sphere, with the metric
      ``value``.

    Raises:
      ValueError: an argument is out of range.
    """
    curvatures = _curvatures(dimensions, condition)

    def value(x: jax.Array) -> jax.Array:
        return jnp.sum(curvatures * x**2) / 2

    return _deterministic("quadratic", _sphere(dimensions), value)


@named()
def noisy_quadratic(
    dimensions: int = 20, condition: float = 100.0, deviation: float = 0.1
) -> Task:
    """`quadratic` with Gaussian noise in the gradient of every step.

    Args:
      dimensions: number of parameters, at least 2.
      condition: ratio of the largest curvature to the smallest, at least 1.
      deviation: standard deviation of the noise in each element of the gradient, at
        least 0.

    Returns:
      A task that starts at a random point of the unit sphere, with the noise-free
      metric ``value``.

    Raises:
      ValueError: an argument is out of range.
    """
    curvatures = _curvatures(dimensions, condition)
    if not deviation >= 0:
        raise ValueError(f"`deviation` must be >= 0, got {deviation}")

    def value(x: jax.Array) -> jax.Array:
        return jnp.sum(curvatures * x**2) / 2

    def noise(key: jax.Array, step: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, step)
        return deviation * jax.random.normal(own, (dimensions,))

    return Task(
        "noisy-quadratic",
        _sphere(dimensions),
        batches_of_step(noise),
        lambda x, batch, key: value(x) + jnp.sum(batch * x),
        lambda x: {"value": value(x)},
        Goal("value"),
    )


@named()
def jumping_quadratic(dimensions: int = 20, every: int = 100) -> Task:
    """½ ‖x − c‖² / n, whose minimum c is drawn anew every ``every`` steps.

    Args:
      dimensions: number n of parameters, at least 1.
      every: steps between jumps, at least 1.

    Returns:
      A task whose goal is a low mean loss over all steps, with the metric ``size``,
      ‖x‖² / n.

    Raises:
      ValueError: an argument is below 1.
    """
    for name, number in (("dimensions", dimensions), ("every", every)):
        if number < 1:
            raise ValueError(f"`{name}` must be >= 1, got {number}")

    def centre(key: jax.Array, step: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, step // every), (dimensions,))

    return Task(
        "jumping-quadratic",
        lambda key: jnp.zeros(dimensions),
        batches_of_step(centre),
        lambda x, batch, key: jnp.mean((x - batch) ** 2) / 2,
        lambda x: {"size": jnp.mean(x**2)},
        Goal("mean_loss"),
    )


def rosenbrock() -> Task:
    """Rosenbrock's function (1 − x)² + 100 (y − x²)², started at (−1.2, 1).

    Returns:
      A task with the metric ``value``; the minimum is 0 at (1, 1).
    """

    def value(x: jax.Array) -> jax.Array:
        result: jax.Array = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        return result

    return _deterministic("rosenbrock", lambda key: jnp.array([-1.2, 1.0]), value)


def line() -> Task:
    """Linear regression of y = 2x at x = 1, 2, 3, 4 with the mean squared error.

    Returns:
      A task that starts at w = 0, with the metrics ``value`` and ``slope``; the minimum
      has slope 2.
    """
    x = np.arange(1.0, 5.0, dtype=np.float32)

    def value(w: jax.Array) -> jax.Array:
        return jnp.mean((w * x - 2 * x) ** 2)

    return _deterministic("line", lambda key: jnp.zeros(()), value, slope=lambda w: w)


def _deterministic(
    name: str,
    init: Callable[[jax.Array], jax.Array],
    value: Callable[[jax.Array], jax.Array],
    **metrics: Callable[[jax.Array], jax.Array],
) -> Task:
    """Task without data, whose metric `value` is its loss."""
    measured = {"value": value, **metrics}
    return Task(
        name,
        init,
        batches_of_step(lambda key, step: step),
        lambda x, batch, key: value(x),
        lambda x: {name: metric(x) for name, metric in measured.items()},
        Goal("value"),
    )


def _curvatures(dimensions: int, condition: float) -> np.ndarray[Any, Any]:
    if dimensions < 2:
        raise ValueError(f"`dimensions` must be >= 2, got {dimensions}")
    if not 1 <= condition < np.inf:
        raise ValueError(f"`condition` must be finite and >= 1, got {condition}")
    return np.geomspace(1 / condition, 1, dimensions, dtype=np.float32)


def _sphere(dimensions: int) -> Callable[[jax.Array], jax.Array]:
    def init(key: jax.Array) -> jax.Array:
        x: jax.Array = jax.random.normal(key, (dimensions,))
        return x / jnp.sqrt(jnp.sum(x**2))

    return init
