"""Hyperparameters as 0-d arrays."""

from typing import Any

import jax
import jax.numpy as jnp

from optax_extras.typing import ScalarOrSchedule


def scalar(value: jax.typing.ArrayLike, dtype: Any) -> jax.Array:
    """A hyperparameter as a 0-d array, explicitly cast to `dtype`."""
    return jnp.asarray(value).astype(dtype)


def evaluate(value: ScalarOrSchedule, count: jax.Array, dtype: Any) -> jax.Array:
    """A hyperparameter at step `count`, as a 0-d array of `dtype`."""
    return scalar(value(count) if callable(value) else value, dtype)
