"""Gradient noise."""

from optax_extras.noise._decayed import (
    AddDecayedNoiseState as AddDecayedNoiseState,
    add_decayed_noise as add_decayed_noise,
    noisy_sgd as noisy_sgd,
)
