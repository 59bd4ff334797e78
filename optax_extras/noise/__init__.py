"""Gradient noise."""

from optax_extras.noise._anticorrelated import (
    AddAnticorrelatedNoiseState,
    add_anticorrelated_noise,
    anti_pgd,
)
from optax_extras.noise._decayed import (
    AddDecayedNoiseState,
    add_decayed_noise,
    noisy_sgd,
)
from optax_extras.noise._langevin import (
    AddLangevinNoiseState,
    PSGLDState,
    add_langevin_noise,
    psgld,
    sgld,
)

__all__ = [
    "AddDecayedNoiseState",
    "add_decayed_noise",
    "noisy_sgd",
    "AddAnticorrelatedNoiseState",
    "add_anticorrelated_noise",
    "anti_pgd",
    "AddLangevinNoiseState",
    "PSGLDState",
    "add_langevin_noise",
    "sgld",
    "psgld",
]
