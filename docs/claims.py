"""What docs/evidence.py compares: methods, tasks, and the claims of the sources."""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import optax
from wells import double_well, two_wells

import optax_extras as ox
from optax_extras.tasks import TASKS, Task, characters, quadratic

STEPS, EARLY = 300, 20

METHODS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "optax.sgd": optax.sgd,
    "optax.adam": optax.adam,
    "optax.adamw": optax.adamw,
    "noisy_sgd": ox.noisy_sgd,
    "noisy_sgd, eta 1": partial(ox.noisy_sgd, eta=1.0),
    "noisy_sgd, eta tuned": ox.noisy_sgd,
    "anti_pgd, stddev tuned": ox.anti_pgd,
    "momentum_sgd": partial(ox.momentum_sgd, momentum=0.9),
    "momentum_sgd, Nesterov": partial(ox.momentum_sgd, nesterov=True),
    "momentum_sgd, corrected": partial(ox.momentum_sgd, bias_correction=True),
    "adasmooth": ox.adasmooth,
    "adasmooth, normalized": partial(ox.adasmooth, normalize=True, debias="product"),
}

# Values of the hyperparameters that are tuned beside the learning rate.
TUNED = {
    "noisy_sgd, eta tuned": {"eta": np.array([1e-4, 1e-2, 1.0])},
    "anti_pgd, stddev tuned": {"stddev": np.array([0.001, 0.01, 0.1])},
}

# Tasks of other sections.
ELSEWHERE = ("federated-digits", "federated-digits-mild", "cart-pole")

SETTINGS: dict[str, Callable[[], Task]] = {
    **{name: make for name, make in TASKS.items() if name not in ELSEWHERE},
    # A quarter of the width and half the batch, because this task costs most.
    "characters": partial(characters, batch_size=16, width=16),
    "quadratic, condition 1000": partial(quadratic, condition=1000.0),
    "double-well": double_well,
    "two-wells": two_wells,
}


@dataclasses.dataclass(frozen=True)
class Claim:
    """The claim that a method does better than its peer on some tasks.

    Attributes:
      text: the claim.
      method: one of `METHODS`.
      peer: another.
      tasks: names of `SETTINGS`.
      steps: length of the runs.
      speed: whether it is about speed, so that a difference of two values that are both
        0 up to rounding counts.
      note: what to know about the comparison.
    """

    text: str
    method: str
    peer: str
    tasks: tuple[str, ...]
    steps: int = STEPS
    speed: bool = False
    note: str = ""


WELLS = ("double-well", "two-wells")
ILL_CONDITIONED = ("quadratic", "quadratic, condition 1000")
GENERALISATION = ("digits", "digits-softmax", "digits-wrong-labels", "characters")
UNSTEADY = ("digits-wrong-labels", "jumping-quadratic", "digits")
CLAIMS = (
    Claim(
        "Gradient noise helps generalisation (Neelakantan et al. 2015).",
        "noisy_sgd, eta tuned",
        "optax.sgd",
        GENERALISATION,
    ),
    Claim(
        "Anticorrelated noise helps generalisation (Orvieto et al. 2022).",
        "anti_pgd, stddev tuned",
        "optax.sgd",
        GENERALISATION,
    ),
    Claim(
        "Gradient noise of variance 0.01 escapes a poor minimum.",
        "noisy_sgd",
        "optax.sgd",
        WELLS,
    ),
    Claim(
        "Gradient noise of variance 1 escapes a poor minimum.",
        "noisy_sgd, eta 1",
        "optax.sgd",
        WELLS,
    ),
    Claim(
        "Momentum accelerates on ill-conditioned problems (Polyak 1964).",
        "momentum_sgd",
        "optax.sgd",
        (*ILL_CONDITIONED, "rosenbrock"),
        speed=True,
        note="Polyak's claim is about heavy-ball momentum, which is `momentum_sgd`.",
    ),
    Claim(
        "Nesterov's momentum accelerates more than Polyak's.",
        "momentum_sgd, Nesterov",
        "momentum_sgd",
        (*ILL_CONDITIONED, "rosenbrock", "digits"),
        speed=True,
    ),
    Claim(
        f"Bias correction helps momentum early: after {EARLY} steps.",
        "momentum_sgd, corrected",
        "momentum_sgd",
        ("digits", "breast-cancer", "characters", *ILL_CONDITIONED),
        EARLY,
    ),
    Claim(
        "AdaSmooth beats Adam under label noise and non-stationarity.",
        "adasmooth",
        "optax.adam",
        UNSTEADY,
    ),
    Claim(
        "AdaSmooth with `normalize` and `debias` beats Adam on these tasks.",
        "adasmooth, normalized",
        "optax.adam",
        UNSTEADY,
    ),
)
