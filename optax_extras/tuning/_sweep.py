"""Many trials as one program: hyperparameters are data, and trials a mapped axis."""

import inspect
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from optax_extras._interrupts import interrupts_between_calls
from optax_extras.tuning._result import SweepResult
from optax_extras.tuning._task import Task
from optax_extras.tuning._training import check_loss, seeds_of
from optax_extras.tuning._trials import MakeOptimizer, Measured, trials_of


def sweep(
    task: Task,
    make_optimizer: MakeOptimizer,
    hyperparameters: Mapping[str, Sequence[float] | np.ndarray[Any, Any]],
    *,
    steps: int,
    seeds: int | Sequence[int] = 5,
    eval_every: int | None = None,
    zipped: bool = False,
    trials_at_once: int | None = None,
    memory_limit: int | None = None,
    mesh: Mesh | None = None,
    resume: str | Path | None = None,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
) -> SweepResult:
    """Trains a task with every value of some hyperparameters and every seed.

    All trials run as one compiled program, a `jax.vmap` over hyperparameters and seeds,
    which is compiled once whatever the values are, and not again by another sweep of as
    many trials with the same ``task`` and ``make_optimizer``, which like a function
    under `jax.jit` are taken to be pure. What a trial draws depends on its seed alone:
    its numbers are those of the same trial run alone, to the rounding of products of
    other shapes. A trial that diverges has infinities or NaN in its own row and harms
    no other.

    Args:
      task: what to train.
      make_optimizer: called with traced 0-d arrays by the names of the
        hyperparameters, and with a ``key`` of each seed's own where it takes one and
        the sweep does not name it; makes the whole optimizer.
      hyperparameters: names to values. The trials are their grid, the last name varying
        fastest, or with ``zipped`` their rows.
      steps: updates of each trial, at least 1.
      seeds: their number, from 0, or the seeds themselves; for initial parameters, the
        order of the data and the loss.
      eval_every: updates between metrics; by default about a tenth of ``steps``.
      zipped: whether values are taken together, the first with the first.
      trials_at_once: rows of hyperparameters, each with all seeds, in memory together,
        at most; all by default. It does not change a result.
      memory_limit: bytes that these may take on a device, by default what it has if it
        tells. If all do not fit, they run in equal chunks of a program compiled anew.
        The data is not counted.
      mesh: devices that share the rows, also of several processes, each of which makes
        the same call.
      resume: an ``.npz`` file that finished chunks of ``trials_at_once`` rows are
        written to, and read from if it is there: an interrupted sweep goes on after its
        last chunk.
      on_progress: called with the updates done and their total, over all trials.

    Returns:
      Metrics, losses, and what they cost; after Ctrl-C those of the finished chunks,
      if there are any.

    Raises:
      ValueError: there are no values or no seeds, zipped values differ in number, a
        number of steps is below 1, the loss is not a scalar, a row does not fit in
        ``memory_limit``, or ``resume`` is the file of another sweep.
      TypeError: ``make_optimizer`` does not take the names.

    Examples:
      >>> import optax
      >>> from optax_extras.tuning import digits, sweep
      >>> rates = [0.01, 0.1, 1.0]
      >>> result = sweep(
      ...     digits(), optax.sgd, {"learning_rate": rates}, steps=20, seeds=2
      ... )
      >>> result.metrics["test_accuracy"].shape  # values, seeds, evaluations
      (3, 2, 11)
      >>> best = result.best("train_loss")
      >>> sorted(best)
      ['learning_rate']
    """
    eval_every = max(1, steps // 10) if eval_every is None else eval_every
    for name, number in (
        ("steps", steps),
        ("eval_every", eval_every),
        ("trials_at_once", 1 if trials_at_once is None else trials_at_once),
        ("memory_limit", 1 if memory_limit is None else memory_limit),
    ):
        if number < 1:
            raise ValueError(f"`{name}` must be >= 1, got {number}")
    rows = _rows(hyperparameters, zipped)
    _check_names(make_optimizer, rows)
    seed_array = seeds_of(seeds)
    check_loss(task)
    if mesh is not None and (trials_at_once or 0) % mesh.size:
        raise ValueError(
            f"`trials_at_once` must be a multiple of the mesh's {mesh.size} devices,"
            f" got {trials_at_once}"
        )
    sharding = _sharding_of_rows(mesh)
    program = trials_of(task, make_optimizer, eval_every, sharding)
    count = len(next(iter(rows.values())))
    evaluated = np.array([*range(0, steps, eval_every), steps])
    device_seeds = jnp.asarray(seed_array, jnp.uint32)

    def chunk(first: int, size: int) -> Any:
        # The last chunk is filled up with its last row, to have the others' shape.
        indices = np.minimum(np.arange(first, first + size), count - 1)
        arrays = {name: jnp.asarray(v[indices]) for name, v in rows.items()}
        return arrays if sharding is None else jax.device_put(arrays, sharding)

    def result(parts: Sequence[Measured]) -> SweepResult:
        metrics, losses = jax.tree.map(
            lambda *x: np.concatenate(x), *((p.metrics, p.losses) for p in parts)
        )
        return SweepResult(
            task=task.name,
            goal=task.goal,
            hyperparameters={k: v[: len(losses)] for k, v in rows.items()},
            seeds=seed_array,
            steps=evaluated,
            metrics=metrics,
            losses=losses,
            compile_seconds=compile_seconds,
            run_seconds=sum(p.seconds for p in parts),
            state_bytes_per_parameter=state_bytes,
            planned=count,
        )

    found = _read(resume, rows, seed_array, evaluated, task.name)
    if found is not None and len(found.losses) == count:
        return found
    started = time.perf_counter()
    size, state_bytes = _rows_that_fit(
        lambda size: program.compile(chunk(0, size), device_seeds),
        count,
        trials_at_once or count,
        mesh.size if mesh else 1,
        _device_memory() if memory_limit is None else memory_limit,
    )
    compile_seconds = time.perf_counter() - started
    parts: list[Measured] = []
    if found is not None:
        compile_seconds += found.compile_seconds
        parts = [Measured(found.metrics, found.losses, found.run_seconds)]
    per_row = len(seed_array) * steps
    try:
        with interrupts_between_calls() as raise_pending:
            for first in range(sum(len(p.losses) for p in parts), count, size):
                kept = min(size, count - first)

                def report(done: int, first: int = first, kept: int = kept) -> None:
                    on_progress(
                        first * per_row + done * kept * len(seed_array), count * per_row
                    )
                    raise_pending()

                part = program.run(chunk(first, size), device_seeds, steps, report)
                metrics = {name: m[:kept] for name, m in part.metrics.items()}
                parts.append(Measured(metrics, part.losses[:kept], part.seconds))
                if resume is not None and jax.process_index() == 0:
                    result(parts).save(resume)
    except KeyboardInterrupt:
        if not parts:
            raise
    return result(parts)


def _device_memory() -> float:
    """The bytes JAX may use of a device; infinite where it does not tell, as on CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return float(stats.get("bytes_limit", math.inf))


def _rows_that_fit(
    compile_rows: Callable[[int], tuple[int, float]],
    count: int,
    most: int,
    unit: int,
    limit: float,
) -> tuple[int, float]:
    """The rows of each of the fewest equal chunks that fit, a multiple of a unit.

    Compiling some rows tells the bytes they take and those of the optimizer's state for
    each parameter, which are returned too.
    """

    def even(size: int) -> int:
        chunks = -(-count // size)
        return -(-count // (chunks * unit)) * unit

    size = even(min(most, count))
    while (compiled := compile_rows(size))[0] > limit:
        used = compiled[0]
        if size == unit:
            raise ValueError(
                f"`memory_limit` must be at least the {used} bytes that {unit} rows"
                f" with all their seeds take on a device, got {limit}"
            )
        size = even(max(unit, min(int(size * limit / used), size - unit)))
    return size, compiled[1]


def _read(
    path: str | Path | None,
    rows: Mapping[str, np.ndarray[Any, Any]],
    seeds: np.ndarray[Any, Any],
    evaluated: np.ndarray[Any, Any],
    task: str,
) -> SweepResult | None:
    """The chunks of an interrupted sweep, which must be this one; None at first."""
    if path is None or not Path(path).exists():
        return None
    found = SweepResult.load(path)
    done = len(found.losses)
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("task", task, found.task),
        ("seeds", seeds, found.seeds),
        ("steps", evaluated, found.steps),
        ("hyperparameters", list(rows), list(found.hyperparameters)),
        *((k, v[:done], found.hyperparameters.get(k)) for k, v in rows.items()),
    )
    for name, ours, theirs in pairs:
        if not np.array_equal(ours, theirs):
            raise ValueError(
                f"`resume` is the file of another sweep: its {name} are {theirs}, not"
                f" {ours}"
            )
    return found


def _sharding_of_rows(mesh: Mesh | None) -> NamedSharding | None:
    """Each device of a mesh has its share of the rows."""
    if mesh is None:
        return None
    kinds = (AxisType.Auto,) * len(mesh.axis_names)
    auto = Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
    axes = PartitionSpec(auto.axis_names)  # type: ignore[no-untyped-call]
    return NamedSharding(auto, axes)


def _rows(
    hyperparameters: Mapping[str, Any], zipped: bool
) -> dict[str, np.ndarray[Any, Any]]:
    """The values of every hyperparameter in every trial."""
    values = {name: np.asarray(v) for name, v in hyperparameters.items()}
    for name, array in values.items():
        if array.ndim != 1 or not array.size or array.dtype.kind not in "fiu":
            raise ValueError(
                f"`hyperparameters` must map names to non-empty lists of numbers, got"
                f" {hyperparameters[name]!r} for {name!r}"
            )
    if not values:
        raise ValueError("`hyperparameters` must not be empty, got {}")
    if not zipped:
        grid = np.meshgrid(*values.values(), indexing="ij")
        return {name: g.ravel() for name, g in zip(values, grid, strict=True)}
    lengths = {name: len(array) for name, array in values.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"zipped `hyperparameters` must have one number of values, got {lengths}"
        )
    return values


def _check_names(make_optimizer: MakeOptimizer, names: Iterable[str]) -> None:
    parameters = inspect.signature(make_optimizer).parameters
    if any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in names:
        if name not in parameters:
            raise TypeError(
                f"`make_optimizer` must take every hyperparameter, got {name!r};"
                f" it takes {', '.join(parameters)}"
            )
