"""Schedules for learning rates and momentum."""

from optax_extras.schedules._demon import demon
from optax_extras.schedules._learning_rate import inverse_time_decay
from optax_extras.schedules._momentum import sutskever_momentum

__all__ = [
    "inverse_time_decay",
    "sutskever_momentum",
    "demon",
]
