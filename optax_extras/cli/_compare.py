"""The sweeps of `optax-extras compare`, one for each optimizer."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from rich.markup import escape

from optax_extras._core.wording import counted
from optax_extras.cli._estimate import with_estimate
from optax_extras.cli._optimizers import Factory, blamed_on, check_step
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
    """Trials to run with each of several optimizers."""

    task: Task
    optimizers: Mapping[str, Factory]
    learning_rates: np.ndarray[Any, Any]
    seeds: int
    steps: int
    clip: float | None

    def __post_init__(self) -> None:
        """Traces a step of each optimizer, before any is trained."""
        for name, factory in self.optimizers.items():
            check_step(name, factory, self.task)

    @property
    def caption(self) -> str:
        """Settings in one line."""
        caption = (
            f"{self.task.name}: {counted(len(self.learning_rates), 'learning rate')} ×"
            f" {counted(self.seeds, 'seed')}, {counted(self.steps, 'step')}"
        )
        if self.clip is not None:
            caption += f", gradients clipped to norm {self.clip:g}"
        return caption

    def run(self, name: str) -> SweepResult:
        """Sweeps an optimizer over all devices, with a progress bar.

        Raises:
          KeyboardInterrupt: the sweep was interrupted before its last chunk.
          ValueError: it failed.
        """
        make = self.optimizers[name]
        if self.clip is not None:
            make = _clipped(make, self.clip)
        devices = jax.devices()[: len(self.learning_rates)]
        with blamed_on(name, self.task), progress_bar(escape(name)) as bar:
            is_first = name == next(iter(self.optimizers))
            estimated = with_estimate(bar, len(self.optimizers))
            result = sweep(
                self.task,
                make,
                {"learning_rate": self.learning_rates},
                steps=self.steps,
                seeds=self.seeds,
                eval_every=max(1, self.steps // EVALUATIONS),
                mesh=Mesh(np.array(devices), ("trials",)),
                on_progress=estimated if is_first else bar,
            )
        if len(result.losses) < result.planned:
            raise KeyboardInterrupt
        return result


def _clipped(make: Factory, norm: float) -> Factory:
    # `wraps` keeps the signature, which tells whether `make` takes a key.
    @functools.wraps(make)
    def make_clipped(**arguments: Any) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(norm), make(**arguments))

    return make_clipped
