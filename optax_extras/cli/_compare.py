"""What `optax-extras compare` runs: one sweep for each optimizer."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from optax_extras.tuning import SweepResult, Task, load_task, progress_bar, sweep

EVALUATIONS = 30

Factory = Callable[..., optax.GradientTransformation]


def task_of(name: str, batch_size: str | None) -> Task:
    """A task, with a batch size of N, "full", or its own.

    Raises:
      ValueError: there is no such task, or it cannot have that batch size.
    """
    if batch_size is None:
        return load_task(name)
    if batch_size != "full" and not batch_size.isdecimal():
        raise ValueError(f"{batch_size!r} is neither a positive integer nor 'full'")
    return load_task(name, batch_size=None if batch_size == "full" else int(batch_size))


def grid(lowest: float, highest: float, budget: int) -> np.ndarray[Any, Any]:
    """Learning rates in equal ratios.

    Raises:
      ValueError: the lowest is above the highest.
    """
    if lowest > highest:
        raise ValueError(
            f"--min-lr must not be above --max-lr, got {lowest} and {highest}"
        )
    return np.geomspace(lowest, highest, budget)


def use_all_cores() -> None:
    """Makes every core a device of JAX, over which a sweep spreads."""
    # In a process where JAX runs already, its devices are used as they are.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", os.cpu_count())  # type: ignore[no-untyped-call]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The same trials for each of some optimizers."""

    task: Task
    optimizers: Mapping[str, Factory]
    learning_rates: np.ndarray[Any, Any]
    seeds: int
    steps: int
    clip: float | None

    @property
    def caption(self) -> str:
        """The settings in one line."""
        caption = (
            f"{self.task.name}: {len(self.learning_rates)} learning rates ×"
            f" {self.seeds} seeds, {self.steps} steps"
        )
        if self.clip is not None:
            caption += f", gradients clipped to norm {self.clip:g}"
        return caption

    def run(self, name: str, after_each: Callable[[], None]) -> SweepResult:
        """An optimizer's sweep over all devices, with a bar.

        Raises:
          KeyboardInterrupt: it was raised by the function that is called after each
            evaluation.
        """
        make = self.optimizers[name]
        if self.clip is not None:
            make = _clipped(make, self.clip)
        devices = jax.devices()[: len(self.learning_rates)]
        with progress_bar(name) as show:

            def on_progress(done: int, total: int) -> None:
                show(done, total)
                after_each()

            result = sweep(
                self.task,
                make,
                {"learning_rate": self.learning_rates},
                steps=self.steps,
                seeds=self.seeds,
                eval_every=max(1, self.steps // EVALUATIONS),
                mesh=Mesh(np.array(devices), ("trials",)),
                on_progress=on_progress,
            )
        if len(result.losses) < result.planned:
            raise KeyboardInterrupt
        return result


def _clipped(make: Factory, norm: float) -> Factory:
    # The signature stays, which tells whether a key is wanted.
    @functools.wraps(make)
    def make_clipped(**arguments: Any) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(norm), make(**arguments))

    return make_clipped
