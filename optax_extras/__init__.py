"""Gradient noise, momentum and adaptive smoothing as optax gradient transformations."""

from optax_extras import adaptive, momentum, noise, schedules
from optax_extras.adaptive import *  # noqa: F403
from optax_extras.momentum import *  # noqa: F403
from optax_extras.noise import *  # noqa: F403
from optax_extras.schedules import *  # noqa: F403

__version__ = "0.1.0"

__all__ = [
    *noise.__all__,
    *momentum.__all__,
    *adaptive.__all__,
    *schedules.__all__,
]
