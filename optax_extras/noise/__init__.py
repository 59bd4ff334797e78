"""Gradient noise."""

from optax_extras.noise._anticorrelated import add_anticorrelated_noise, anti_pgd
from optax_extras.noise._decayed import add_decayed_noise, noisy_sgd
from optax_extras.noise._langevin import PSGLDState, add_langevin_noise, psgld, sgld
from optax_extras.noise._stage import AddNoiseState

__all__ = [
    "AddNoiseState",
    "add_decayed_noise",
    "noisy_sgd",
    "add_anticorrelated_noise",
    "anti_pgd",
    "add_langevin_noise",
    "PSGLDState",
    "sgld",
    "psgld",
]
