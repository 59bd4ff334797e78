"""What docs/evidence_relatives.py compares: relatives of our methods, and tasks."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from study import Method, Study

import optax_extras as ox
from optax_extras.tasks import TASKS as BUNDLED, Task, quadratic

TUNING_SEEDS = range(10)
# Standard deviation of the starts of Rosenbrock's function. Its curvature grows with
# them: with 0.3, the rate chosen for momentum of 0.9 diverges from half of the starts.
SPREAD = 0.05
Make = Callable[..., optax.GradientTransformation]

ADAM, MOMENTUM, HIGH = "optax.adam", "momentum 0.9", "momentum 0.99"
BY_VALUE = f"{HIGH}, restart by value"
high = partial(ox.momentum_sgd, momentum=0.99)


def restarted(rule: str) -> Make:
    """Momentum of 0.99 that starts again by a rule."""
    return lambda learning_rate: ox.adaptive_restart(high(learning_rate), rule=rule)


# The first of each is the peer of the others.
METHODS: dict[str, dict[str, Make]] = {
    "adaptive": {
        ADAM: optax.adam,
        "adasmooth": ox.adasmooth,
        "adasmooth, normalized": partial(
            ox.adasmooth, normalize=True, debias="product"
        ),
        "adashift": ox.adashift,
        "adai": ox.adai,
        "diffgrad": ox.diffgrad,
        "qhadam": ox.qhadam,
        "optax.sgd": optax.sgd,
    },
    "momentum": {
        MOMENTUM: partial(ox.momentum_sgd, momentum=0.9),
        "optax.sgd": optax.sgd,
        "Nesterov 0.9": partial(ox.momentum_sgd, momentum=0.9, nesterov=True),
        "qhm": ox.qhm,
        "aggmo": ox.aggmo,
        "srsgd": ox.srsgd,
        HIGH: high,
        f"{HIGH}, restart by gradient": restarted("gradient"),
        BY_VALUE: restarted("value"),
    },
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A task of a family of methods.

    Attributes:
      family: of `METHODS`.
      make: makes the task.
      rates: lowest and highest learning rate.
      per_decade: learning rates in a factor of ten.
      steps: of each trial.
      speed: whether the task is to go down a loss without noise, as fast as possible.
    """

    family: str
    make: Callable[[], Task]
    rates: tuple[float, float]
    per_decade: int = 4
    steps: int = 300
    speed: bool = False

    def grid(self) -> np.ndarray:
        """All learning rates."""
        low, high = np.log10(self.rates)
        return np.logspace(low, high, round((high - low) * self.per_decade) + 1)


def rosenbrock() -> Task:
    """Rosenbrock's function, from a start of its own for each seed."""
    task = BUNDLED["rosenbrock"]()

    def init(key: jax.Array) -> jax.Array:
        start: jax.Array = task.init(key) + SPREAD * jax.random.normal(key, (2,))
        return start

    return dataclasses.replace(task, init=init)


ILL_CONDITIONED = partial(quadratic, condition=1000.0)
TASKS: dict[str, Setting] = {
    "digits": Setting("adaptive", BUNDLED["digits"], (3e-4, 3)),
    "digits-wrong-labels": Setting(
        "adaptive", BUNDLED["digits-wrong-labels"], (1e-4, 1)
    ),
    "jumping-quadratic": Setting(
        "adaptive", BUNDLED["jumping-quadratic"], (1e-2, 1e3), 8
    ),
    # Later, the best methods balance nearly every pole.
    "cart-pole": Setting("adaptive", BUNDLED["cart-pole"], (3e-5, 0.3), steps=150),
    "quadratic": Setting("momentum", quadratic, (1e-4, 10), 8, speed=True),
    "quadratic, condition 1000": Setting(
        "momentum", ILL_CONDITIONED, (1e-4, 10), 8, speed=True
    ),
    "rosenbrock, random starts": Setting(
        "momentum", rosenbrock, (1e-6, 1), 8, speed=True
    ),
    "digits, momentum": Setting("momentum", BUNDLED["digits"], (1e-4, 10)),
}


def told_the_loss(make: Make, task: Task) -> Make:
    """An optimizer that gets the loss of a task without mini-batches as ``value``."""

    def build(learning_rate: Any) -> optax.GradientTransformation:
        inner = make(learning_rate)

        def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
            value = task.loss(params, None, jax.random.key(0))
            return inner.update(updates, state, params, value=value)

        return optax.GradientTransformation(inner.init, update)

    return build


def study(name: str, folder: Path | None = None) -> Study:
    """The methods on a task, with a folder for finished sweeps."""
    setting = TASKS[name]
    task, makes = setting.make(), dict(METHODS[setting.family])
    if setting.speed and BY_VALUE in makes:
        makes[BY_VALUE] = told_the_loss(makes[BY_VALUE], task)
    else:
        makes.pop(BY_VALUE, None)
    grid: Mapping[str, np.ndarray] = {"learning_rate": setting.grid()}
    methods = {k: Method(make, grid) for k, make in makes.items()}
    return Study(
        f"relatives-{name}", task, methods, setting.steps, TUNING_SEEDS, folder=folder
    )


def peer_of(found: Study) -> str:
    """The method beside which the others of a study stand."""
    return next(iter(found.methods))
