"""Gradient noise."""

from optax_extras.noise._anticorrelated import (
    add_anticorrelated_noise as add_anticorrelated_noise,
    anti_pgd as anti_pgd,
)
from optax_extras.noise._decayed import (
    add_decayed_noise as add_decayed_noise,
    noisy_sgd as noisy_sgd,
)
from optax_extras.noise._langevin import (
    PSGLDState as PSGLDState,
    add_langevin_noise as add_langevin_noise,
    psgld as psgld,
    sgld as sgld,
)
from optax_extras.noise._stage import AddNoiseState as AddNoiseState
