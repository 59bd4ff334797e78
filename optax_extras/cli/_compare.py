"""The sweeps of `optax-extras compare` and `communicate`, one for each optimizer."""

import dataclasses
from collections.abc import Mapping
from functools import partial, wraps
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from rich.markup import escape

from optax_extras._core.factories import keyed
from optax_extras._core.wording import counted
from optax_extras.cli._estimate import with_estimate
from optax_extras.cli._methods import AXIS
from optax_extras.cli._optimizers import Factory, blamed_on, check_step
from optax_extras.communication import wire_bytes
from optax_extras.tasks import Task, load_task
from optax_extras.tuning import SweepResult, progress_bar, sweep

EVALUATIONS = 30


def task_of(name: str, batch_size: str | None) -> Task:
    """Loads a task.

    Args:
      name: bundled task, or ``module:attribute``.
      batch_size: a number, ``"full"`` for all examples, or None for the task's default.

    Raises:
      ValueError: there is no such task, or it does not take that batch size.
    """
    if batch_size is None:
        return load_task(name)
    if batch_size != "full" and not batch_size.isdecimal():
        raise ValueError(f"{batch_size!r} is neither a positive integer nor 'full'")
    return load_task(name, batch_size=None if batch_size == "full" else int(batch_size))


def grid(lowest: float, highest: float, budget: int) -> np.ndarray[Any, Any]:
    """Log-spaced learning rates.

    Raises:
      ValueError: ``lowest`` is above ``highest``.
    """
    if lowest > highest:
        raise ValueError(
            f"--min-lr must not be above --max-lr, got {lowest} and {highest}"
        )
    return np.geomspace(lowest, highest, budget)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Trials to run with each of several optimizers.

    With ``workers``, so many devices train each trial together, and the factories take
    ``axis_name`` and ``workers`` too.
    """

    task: Task
    optimizers: Mapping[str, Factory]
    learning_rates: np.ndarray[Any, Any]
    seeds: int
    steps: int
    clip: float | None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Traces a step of each optimizer, before any is trained.

        Raises:
          ValueError: one cannot be traced, or there are not enough devices.
        """
        if self.workers is None:
            for name, factory in self.optimizers.items():
                check_step(name, factory, self.task)
            return
        if self.workers > len(jax.devices()):
            raise ValueError(
                f"--workers must not be above the {len(jax.devices())} devices, got"
                f" {self.workers}"
            )
        params = jax.eval_shape(self.task.init, jax.random.key(0))
        for name in self.optimizers:
            with blamed_on(name, self.task):
                tx = keyed(self._factory(name), jax.random.key(0))(learning_rate=0.1)
                moved = wire_bytes(
                    tx,
                    params,
                    axis_name=AXIS,
                    workers=self.workers,
                    step=range(self.steps),
                )
                if self.workers > 1 and not moved.sent:
                    steps = counted(self.steps, "step")
                    raise ValueError(f"it sends nothing in {steps}")

    @property
    def caption(self) -> str:
        """Settings in one line."""
        caption = (
            f"{self.task.name}: {counted(len(self.learning_rates), 'learning rate')} ×"
            f" {counted(self.seeds, 'seed')}, {counted(self.steps, 'step')}"
        )
        if self.workers is not None:
            caption += f", {counted(self.workers, 'worker')}"
        if self.clip is not None:
            caption += f", gradients clipped to norm {self.clip:g}"
        return caption

    def run(self, name: str) -> SweepResult:
        """Sweeps an optimizer over all devices, with a progress bar.

        Raises:
          KeyboardInterrupt: the sweep was interrupted before its last chunk.
          ValueError: it failed.
        """
        with blamed_on(name, self.task), progress_bar(escape(name)) as bar:
            is_first = name == next(iter(self.optimizers))
            estimated = with_estimate(bar, len(self.optimizers))
            result = sweep(
                self.task,
                self._factory(name),
                {"learning_rate": self.learning_rates},
                steps=self.steps,
                seeds=self.seeds,
                eval_every=max(1, self.steps // EVALUATIONS),
                mesh=self._mesh if self.workers is None else None,
                worker_mesh=None if self.workers is None else self._mesh,
                on_progress=estimated if is_first else bar,
            )
        if len(result.losses) < result.planned:
            raise KeyboardInterrupt
        return result

    @property
    def _mesh(self) -> Mesh:
        """The workers, or the devices among which the learning rates are divided."""
        if self.workers is None:
            devices = jax.devices()[: len(self.learning_rates)]
            return Mesh(np.array(devices), ("trials",))
        return Mesh(np.array(jax.devices()[: self.workers]), (AXIS,))

    def _factory(self, name: str) -> Factory:
        make = self.optimizers[name]
        if self.workers is not None:
            make = partial(make, axis_name=AXIS, workers=self.workers)
        return make if self.clip is None else _clipped(make, self.clip)


def _clipped(make: Factory, norm: float) -> Factory:
    # `wraps` keeps the signature, which tells whether `make` takes a key.
    @wraps(make)
    def make_clipped(**arguments: Any) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(norm), make(**arguments))

    return make_clipped
