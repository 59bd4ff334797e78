"""What docs/evidence_memory.py compares: states and parameters of fewer bits."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from study import Method, Study, tuned

import optax_extras as ox
from optax_extras.codecs import Codec, bfloat16, blockwise, float8
from optax_extras.tasks import Task, characters, digits

STEPS, LONG, TUNING_SEEDS = 300, 1200, range(10)
FULL = "float32"
Make = Callable[..., optax.GradientTransformation]

NEAREST, EIGHT = bfloat16(stochastic=False), blockwise(signed=False)
FOUR, FOUR_NEAREST = blockwise(4), blockwise(4, stochastic=False)
STATES: dict[str, tuple[Make, dict[str, dict[str, Codec]]]] = {
    "Adam": (
        optax.adam,
        {
            "bfloat16, nearest": {"mu|nu": NEAREST},
            "bfloat16": {"mu|nu": bfloat16()},
            "8 bit": {"mu": blockwise(), "nu": EIGHT},
            "4 bit and 8 bit": {"mu": FOUR, "nu": EIGHT},
            "4 bit, nearest, and 8 bit": {"mu": FOUR_NEAREST, "nu": EIGHT},
            "float8 e5m2": {"mu|nu": float8()},
        },
    ),
    "momentum_sgd": (
        ox.momentum_sgd,
        {
            "bfloat16, nearest": {"trace": NEAREST},
            "8 bit": {"trace": blockwise()},
            "4 bit": {"trace": FOUR},
            "4 bit, nearest": {"trace": FOUR_NEAREST},
        },
    ),
}
WITH_PARAMETERS = "AdamW"


def coded(make: Make, codecs: Mapping[str, Codec]) -> Make:
    """An optimizer whose state is kept in codes."""

    def build(learning_rate: Any, key: Any) -> optax.GradientTransformation:
        return ox.compress_state(make(learning_rate), codecs, key=key)

    return build


def kept(mode: str) -> Make:
    """AdamW for parameters that stay in bfloat16."""

    def build(learning_rate: Any, key: Any) -> optax.GradientTransformation:
        return ox.keep_bfloat16_params(optax.adamw(learning_rate), mode, key=key)

    return build


wide = partial(optax.tree.cast, dtype=jnp.float32)


def to_nearest(learning_rate: Any) -> optax.GradientTransformation:
    """AdamW in float32, whose sums with parameters `optax.apply_updates` rounds."""
    inner = optax.adamw(learning_rate)

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        return inner.update(wide(updates), state, wide(params))

    return optax.GradientTransformation(lambda params: inner.init(wide(params)), update)


def in_bfloat16(task: Task) -> Task:
    """A task with parameters in bfloat16, which computes in float32."""
    return dataclasses.replace(
        task,
        init=lambda key: optax.tree.cast(task.init(key), jnp.bfloat16),
        loss=lambda params, batch, key: task.loss(wide(params), batch, key),
        evaluate=lambda params: task.evaluate(wide(params)),
    )


def falling(make: Make) -> Make:
    """An optimizer with a learning rate that falls to 0 in the long runs."""

    @functools.wraps(make)  # and so with a key where that has one
    def build(learning_rate: Any, **options: Any) -> optax.GradientTransformation:
        return make(optax.cosine_decay_schedule(learning_rate, LONG), **options)

    return build


ROUNDINGS = {
    "nearest": to_nearest,
    "stochastic": kept("stochastic"),
    "Kahan": kept("kahan"),
}
TASKS: dict[str, tuple[Callable[[], Task], dict[str, np.ndarray]]] = {
    "digits": (
        digits,
        {
            "Adam": np.geomspace(0.001, 0.016, 5),
            "momentum_sgd": np.geomspace(0.004, 0.064, 5),
        },
    ),
    "digits-wrong-labels": (
        partial(digits, wrong_labels=0.3),
        {
            "Adam": np.geomspace(0.00025, 0.004, 5),
            "momentum_sgd": np.geomspace(0.0025, 0.04, 5),
        },
    ),
    # As small as for the sections on workers.
    "characters": (
        partial(characters, length=16, width=32),
        {
            "Adam": np.geomspace(0.005, 0.08, 5),
            "momentum_sgd": np.geomspace(0.125, 2, 5),
        },
    ),
}


def study(name: str, folder: Path | None = None) -> Study:
    """The methods on a task, with a folder for finished sweeps."""
    make_task, grids = TASKS[name]
    task, methods = make_task(), {}
    for optimizer, (make, by_label) in STATES.items():
        grid = {"learning_rate": grids[optimizer]}
        methods[f"{optimizer}, {FULL}"] = Method(make, grid)
        for label, codecs in by_label.items():
            methods[f"{optimizer}, {label}"] = Method(coded(make, codecs), grid)
    grid, half = {"learning_rate": grids["Adam"]}, in_bfloat16(task)
    methods[f"{WITH_PARAMETERS}, {FULL}"] = Method(optax.adamw, grid)
    for label, make in ROUNDINGS.items():
        method = f"{WITH_PARAMETERS}, bfloat16 parameters, {label}"
        methods[method] = Method(make, grid, half)
    return Study(f"memory-{name}", task, methods, STEPS, TUNING_SEEDS, folder=folder)


def peer_of(method: str) -> str:
    """The same optimizer in float32."""
    return f"{method.split(',')[0]}, {FULL}"


def at_the_rates_of_peers(found: Study, **changes: Any) -> Study:
    """A study with the rates that were chosen for the peers in another."""
    return dataclasses.replace(
        found, chosen_by=lambda method: tuned(found, peer_of(method)), **changes
    )


def longer(found: Study) -> Study:
    """Adam and AdamW in longer runs, with falling learning rates."""
    methods = {
        k: dataclasses.replace(method, make=falling(method.make))
        for k, method in found.methods.items()
        if k.startswith("Adam")
    }
    name = f"{found.name}-long"
    return at_the_rates_of_peers(found, name=name, methods=methods, steps=LONG)
