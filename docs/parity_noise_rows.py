"""The table of parity as data: noise and schedules."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import optax
import parity_wrapped as wrapped
from parity_rows import RATE, falling, plain, torch
from parity_steps import GRADIENTS, STEPS, Path, Row, schedule

import optax_extras as ox


def noise_rows() -> Iterator[Row]:
    """Decayed, anticorrelated and Langevin noise."""
    unit = partial(wrapped.noise, ox.add_decayed_noise(1.0, 0.0, key=3))

    def decayed() -> Path:
        sizes = np.sqrt(0.3 / (1 + np.arange(STEPS)) ** 0.55)
        return {
            name: GRADIENTS[name] + sizes.reshape(-1, *(1 for _ in z.shape[1:])) * z
            for name, z in unit().items()
        }

    yield Row(
        names=("add_decayed_noise",),
        options="η = 0.3, γ = 0.55",
        reference="the paper's σ², times the draws of the same key at η = 1, γ = 0",
        ours=plain(ox.add_decayed_noise, 0.3, 0.55, key=3),
        theirs=decayed,
    )
    options = {"eta": 0.3, "gamma": 0.55}
    yield Row(
        names=("add_decayed_noise",),
        options="standard deviations of 65 536 draws in each of 4 steps",
        reference="`optax.add_noise`",
        ours=lambda: wrapped.deviations_at(ox.add_decayed_noise(**options, key=0)),
        theirs=lambda: wrapped.deviations_at(optax.add_noise(**options, key=0)),
        bound=0.02,
    )
    yield Row(
        names=("noisy_sgd",),
        options="η = 0, Nesterov",
        reference="`torch.optim.SGD`",
        ours=plain(ox.noisy_sgd, RATE, 0.0, key=0, momentum=0.9, nesterov=True),
        **torch("torch.optim:SGD", lr=RATE, momentum=0.9, nesterov=True),
    )
    yield Row(
        names=("noisy_sgd",),
        options="η = 0",
        reference="`optax.noisy_sgd`",
        ours=plain(ox.noisy_sgd, RATE, 0.0, key=0),
        theirs=plain(optax.noisy_sgd, RATE, 0.0, key=0),
    )
    yield Row(
        names=("add_anticorrelated_noise",),
        options="σ rises",
        reference="the paper's equation, with draws that are seen one by one",
        ours=plain(ox.add_anticorrelated_noise, wrapped.rising, key=4),
        theirs=partial(wrapped.differences_of_draws, 4),
    )
    yield Row(
        names=("anti_pgd",),
        options="σ = 0",
        reference="`torch.optim.SGD`",
        ours=plain(ox.anti_pgd, RATE, 0.0, key=0),
        **torch("torch.optim:SGD", lr=RATE),
    )
    # Of unit size: the root of 2 h T.
    draws = partial(wrapped.noise, ox.add_langevin_noise(0.5, 1.0, key=5))

    def langevin() -> Path:
        rates = np.array([falling(t) for t in range(STEPS)])
        found = {}
        for name, z in draws().items():
            h = rates.reshape(-1, *(1 for _ in z.shape[1:]))
            found[name] = -h * GRADIENTS[name] + np.sqrt(2 * h * 0.1) * z
        return found

    yield Row(
        names=("add_langevin_noise", "sgld"),
        options="rate falls, T = 0.1",
        reference="the paper's equation, with the draws of the same key at 2hT = 1",
        ours=plain(ox.sgld, falling, 0.1, key=5),
        theirs=langevin,
    )
    sizes = {
        "add_anticorrelated_noise": ("√2 σ", ox.add_anticorrelated_noise(0.5, key=6)),
        "add_langevin_noise": ("√(2hT)", ox.add_langevin_noise(0.25, 1.0, key=7)),
    }
    for name, (formula, tx) in sizes.items():
        yield Row(
            names=(name,),
            options="standard deviations of 65 536 draws in each of 4 steps",
            reference=f"the paper's {formula}",
            ours=partial(wrapped.deviations_at, tx),
            theirs=lambda: {"std": np.full((4, 1), 0.5**0.5)},
            bound=0.02,
        )
    yield Row(
        names=("psgld",),
        options="rate falls, T = 0.1",
        reference="the paper's equation, with the draws of `sgld`",
        ours=plain(ox.psgld, falling, 0.1, key=5),
        theirs=lambda: wrapped.psgld(draws(), rate=falling, temperature=0.1),
    )
    yield Row(
        names=("psgld",),
        options="T = 0",
        reference="`torch.optim.RMSprop`",
        ours=plain(ox.psgld, RATE, 0.0, key=0),
        **torch("torch.optim:RMSprop", lr=RATE, alpha=0.99, eps=1e-5),
    )


def schedule_rows() -> Iterator[Row]:
    """Schedules, at 200 steps."""
    t = np.arange(float(STEPS))

    def row(name: str, options: str, function: Any, values: np.ndarray) -> Row:
        return Row(
            names=(name,),
            options=options,
            reference="its formula",
            ours=lambda: schedule(function),
            theirs=lambda: {"value": values},
        )

    yield row(
        "inverse_time_decay",
        "k = 0.5, T = 10",
        ox.inverse_time_decay(0.1, 0.5, 10),
        0.1 / (1 + 0.5 * t / 10),
    )
    stages = 1 - 2 ** (-1 - np.log2(np.floor(t / 25) + 1))
    yield row(
        "sutskever_momentum",
        "a stage of 25 steps, at most 0.9",
        ox.sutskever_momentum(0.9, 25),
        np.minimum(stages, 0.9),
    )
    left = 1 - t / STEPS
    yield row(
        "demon",
        "β = 0.9, T = 200",
        ox.demon(0.9, STEPS),
        0.9 * left / (1 - 0.9 + 0.9 * left),
    )
