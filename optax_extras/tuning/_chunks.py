"""Chunks of a sweep: how many rows fit in memory, and which are finished."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from optax_extras.tasks import Task
from optax_extras.tuning._files import check_writable
from optax_extras.tuning._programs import CompiledTrials, Measured
from optax_extras.tuning._result import SweepResult


@dataclasses.dataclass(frozen=True)
class Grid:
    """Trials and evaluations of a sweep."""

    rows: Mapping[str, np.ndarray[Any, Any]]  # hyperparameters, each (rows,)
    seeds: np.ndarray[Any, Any]  # (seeds,)
    steps: np.ndarray[Any, Any]  # updates done at each evaluation

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.rows.values())))


class Chunks:
    """Finished chunks of a sweep, joined to one result and kept in a file."""

    def __init__(
        self, task: Task, grid: Grid, path: str | Path | None, program: str = ""
    ):
        """Reads the finished chunks, if the file exists.

        Args:
          task: what is trained.
          grid: its trials.
          path: the file, if there is one.
          program: `fingerprint` of a trial.

        Raises:
          OSError: the file cannot be read, or chunks cannot be saved in its folder.
          ValueError: it is the file of another sweep, or damaged.
        """
        self._task, self._grid, self._path, self._program = task, grid, path, program
        self._parts: list[Measured] = []
        self.compile_seconds = self.state_bytes_per_parameter = 0.0
        self.traffic = np.zeros((2, len(grid.steps)), np.int64)
        if path is None:
            return
        if Path(path).exists():
            self._read(SweepResult.load(path))
        if self.finished < len(grid) and _writes():
            check_writable(path)  # before anything is computed

    @property
    def finished(self) -> int:
        """Number of finished rows."""
        return sum(len(part.losses) for part in self._parts)

    def add(self, part: Measured) -> None:
        """Appends a chunk, of which rows beyond the grid are dropped, and saves all."""
        kept = len(self._grid) - self.finished
        metrics, recorded, losses, initial_losses = jax.tree.map(
            lambda x: _plain(x[:kept]), part[:-1]
        )
        self._parts.append(
            Measured(metrics, recorded, losses, initial_losses, part.seconds)
        )
        if self._path is not None and _writes():
            self.result().save(self._path)

    def result(self) -> SweepResult:
        """Result of the finished rows, of which there must be some."""
        metrics, recorded, losses, initial_losses = jax.tree.map(
            lambda *x: np.concatenate(x), *(part[:-1] for part in self._parts)
        )
        return SweepResult(
            task=self._task.name,
            goal=self._task.goal,
            hyperparameters={k: v[: len(losses)] for k, v in self._grid.rows.items()},
            seeds=self._grid.seeds,
            steps=self._grid.steps,
            metrics=metrics,
            recorded=recorded,
            losses=losses,
            initial_losses=initial_losses,
            compile_seconds=self.compile_seconds,
            run_seconds=sum(part.seconds for part in self._parts),
            state_bytes_per_parameter=self.state_bytes_per_parameter,
            sent_bytes=self.traffic[0],
            received_bytes=self.traffic[1],
            planned=len(self._grid),
            program=self._program,
        )

    def _read(self, found: SweepResult) -> None:
        rows, done = self._grid.rows, len(found.losses)
        pairs: tuple[tuple[str, Any, Any], ...] = (
            ("task", self._task.name, found.task),
            ("seeds", self._grid.seeds, found.seeds),
            ("steps", self._grid.steps, found.steps),
            ("hyperparameters", list(rows), list(found.hyperparameters)),
            *((k, v[:done], found.hyperparameters.get(k)) for k, v in rows.items()),
        )
        for name, ours, theirs in pairs:
            if not np.array_equal(ours, theirs):
                raise ValueError(
                    f"`resume` is the file of another sweep: its {name} are {theirs},"
                    f" not {ours}; got {self._path}"
                )
        if found.program != self._program:
            raise ValueError(
                "`resume` is the file of another sweep: its optimizer or its task"
                " computes something else, or did so with other versions of JAX and"
                f" optax; got {self._path}"
            )
        self._parts = [
            Measured(
                found.metrics,
                found.recorded,
                found.losses,
                found.initial_losses,
                found.run_seconds,
            )
        ]
        self.compile_seconds = found.compile_seconds
        self.state_bytes_per_parameter = found.state_bytes_per_parameter
        self.traffic = np.stack([found.sent_bytes, found.received_bytes])


def _writes() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def _plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array that NumPy can store: it knows no bfloat16, whose kind is V."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def device_memory() -> float:
    """Bytes of a device that JAX may use; infinite where unknown, as on CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return float(stats.get("bytes_limit", math.inf))


def fit_chunks(
    compile_rows: Callable[[int], CompiledTrials],
    count: int,
    most: int,
    unit: int,
    limit: float,
) -> tuple[int, CompiledTrials]:
    """Finds the fewest equal chunks that fit in memory.

    Args:
      compile_rows: compiles the programs for a number of rows.
      count: rows in all.
      most: rows in a chunk, at most.
      unit: divisor of the rows in a chunk.
      limit: bytes that a chunk may need on a device.

    Returns:
      The rows in a chunk, and their programs.

    Raises:
      ValueError: ``unit`` rows do not fit.
    """

    def even(size: int) -> int:
        chunks = -(-count // size)
        return -(-count // (chunks * unit)) * unit

    size = even(min(most, count))
    while (compiled := compile_rows(size)).bytes_needed > limit:
        used = compiled.bytes_needed
        if size == unit:
            raise ValueError(
                f"`memory_limit` must be at least the {used} bytes that {unit} rows"
                f" with all their seeds take on a device, got {limit}"
            )
        size = even(max(unit, min(int(size * limit / used), size - unit)))
    return size, compiled
