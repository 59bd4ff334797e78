"""`sweep`: many trials as one program, with hyperparameters and seeds as arguments."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from optax_extras._core import checks
from optax_extras._core.factories import MakeOptimizer, check_factory, keyed
from optax_extras._core.interrupts import interrupts_between_calls
from optax_extras.tasks import Task
from optax_extras.tuning._chunks import Chunks, Grid, device_memory, fit_chunks
from optax_extras.tuning._fingerprint import fingerprint
from optax_extras.tuning._points import PointOf, Points
from optax_extras.tuning._programs import trials_of
from optax_extras.tuning._result import SweepResult
from optax_extras.tuning._task_checks import check_task
from optax_extras.tuning._trial import seeds_of
from optax_extras.tuning._workers import Workers, traffic


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
    worker_mesh: Mesh | None = None,
    resume: str | Path | None = None,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
    gradient_params: PointOf | None = None,
    eval_params: PointOf | None = None,
) -> SweepResult:
    """Trains a task for every combination of hyperparameters and seeds.

    All trials run as one compiled program: a `jax.vmap` over rows of hyperparameters
    and over seeds. Both are arguments of the program, which is not compiled again for
    other values, nor by a later sweep with the same ``task``, ``make_optimizer`` and
    numbers of rows and seeds. Like a function under `jax.jit`, ``make_optimizer`` must
    be pure.

    Random numbers of a trial depend on its seed alone. Its results equal those of the
    same trial run alone up to rounding, because matrix products have other shapes. A
    trial that diverges does not affect the others.

    Scalars that `optax_extras.record` keeps in the optimizer's state, if it is a part
    of it, are read at each evaluation, and become curves of the result.

    Args:
      task: what to train.
      make_optimizer: factory of the whole optimizer. It is called with the
        hyperparameters by name, as traced 0-d arrays, and with a ``key`` that depends
        on the seed if it has such an argument and the sweep does not name it.
      hyperparameters: values by name. The rows are their grid, with the last name
        varying fastest, or with ``zipped`` the tuples of values at equal positions.
      steps: updates of each trial, at least 1.
      seeds: number of seeds, counted from 0, or the seeds. A seed determines the
        initial parameters, the order of the data and the keys of the loss.
      eval_every: updates between evaluations of the metrics; by default about a tenth
        of ``steps``.
      zipped: whether to pair the values by position instead of making a grid.
      trials_at_once: maximal number of rows in memory at once, each with all seeds; all
        by default. It does not change the results.
      memory_limit: bytes that the trials may take on each device, by default the memory
        that the device reports. If the rows do not fit, they run in equal chunks of a
        program compiled for that size. The data is not counted.
      mesh: devices over which the rows are distributed. They may belong to several
        processes, each of which makes the same call.
      worker_mesh: devices of one axis, which train each trial together: each takes the
        gradient of its part of a mini-batch, and the optimizer, such as a chain that
        starts with `compressed_mean`, takes the mean over the axis. With
        `local_updates`, each has parameters of its own, of which gradients are taken,
        and metrics are those of the parameters that all agreed on last, which change
        every H steps. If the mini-batches have ``client_sizes``, and as many as there
        are devices, the optimizer gets them as ``weight``, which counts in its means;
        losses are plain means. Not with ``mesh``.
      resume: path of an ``.npz`` file. Each finished chunk of ``trials_at_once`` rows
        is saved there, and an interrupted sweep continues after its last chunk, if the
        optimizer and the task still compute the same.
      on_progress: called with the number of updates done and their total, over all
        trials.
      gradient_params: function of the optimizer's state and the parameters that
        computes where gradients are taken. By default these are the look-ahead point of
        `nesterov_lookahead`, found anywhere in the state, and the parameters of all
        other methods. With `local_updates`, both arguments are a worker's own.
      eval_params: function of the same arguments that computes where metrics are
        evaluated. By default these are the average of `optax.contrib.schedule_free`,
        found anywhere in the state, and the parameters of all other methods. With
        `local_updates`, the parameters are those that all workers agreed on last.

    Returns:
      Metrics, losses and costs. After Ctrl-C they are those of the finished chunks, if
      there are any.

    Raises:
      ValueError: there are no values or no seeds, zipped values differ in number, a
        number is out of range, a loss, a metric or the goal of the task does not fit, a
        recorded scalar has the name of something else, a
        point is not like the parameters, a row does not fit in ``memory_limit``,
        ``resume`` is the file of another sweep or damaged, or mini-batches cannot be
        divided among the devices of ``worker_mesh``.
      OSError: ``resume`` cannot be read or written.
      TypeError: a number of steps or rows is no integer; ``make_optimizer`` does not
        take the hyperparameters, or needs other arguments; a function of the task, or
        of a point, takes other arguments or returns another type.

    Examples:
      >>> import optax
      >>> from optax_extras.tuning import digits, sweep
      >>> rates = [0.01, 0.1, 1.0]
      >>> result = sweep(
      ...     digits(), optax.sgd, {"learning_rate": rates}, steps=20, seeds=2
      ... )
      >>> result.metrics["test_accuracy"].shape  # values, seeds, evaluations
      (3, 2, 11)
      >>> best = result.best("train_loss", "min")
      >>> sorted(best)
      ['learning_rate']
    """
    steps = checks.positive_integer("steps", steps)
    eval_every = max(1, steps // 10) if eval_every is None else eval_every
    eval_every = checks.positive_integer("eval_every", eval_every)
    if trials_at_once is not None:
        trials_at_once = checks.positive_integer("trials_at_once", trials_at_once)
    if memory_limit is not None:
        checks.number("memory_limit", memory_limit, ">= 1", lambda x: x >= 1)
    rows = _rows(hyperparameters, zipped)
    check_factory(make_optimizer, rows)
    grid = Grid(rows, seeds_of(seeds), np.array([*range(0, steps, eval_every), steps]))
    check_task(task)
    points = Points(gradient_params, eval_params)
    if mesh is not None and (trials_at_once or 0) % mesh.size:
        raise ValueError(
            f"`trials_at_once` must be a multiple of the mesh's {mesh.size} devices,"
            f" got {trials_at_once}"
        )
    workers = None
    if worker_mesh is not None:
        if mesh is not None:
            raise ValueError(
                f"`mesh` must be None with `worker_mesh`, got {mesh} and {worker_mesh}"
            )
        workers = Workers.of(worker_mesh, task)
    first_row = {name: values[0] for name, values in rows.items()}
    program = (
        ""
        if resume is None
        else fingerprint(task, make_optimizer, points, first_row, workers)
    )
    chunks = Chunks(task, grid, resume, program)
    if chunks.finished == len(grid):
        return chunks.result()
    sharding = _sharding_of_rows(mesh)
    if workers is not None:
        sharding = NamedSharding(workers.mesh, PartitionSpec())
        params = jax.eval_shape(task.init, jax.random.key(0))
        tx = keyed(make_optimizer, jax.random.key(0))(**first_row)
        chunks.traffic = traffic(tx, params, workers, grid.steps)
    trials = trials_of(task, make_optimizer, eval_every, sharding, points, workers)
    device_seeds = jnp.asarray(grid.seeds, jnp.uint32)

    def values(first: int, size: int) -> Any:
        # The last chunk repeats the last row, so that all chunks have one shape.
        indices = np.minimum(np.arange(first, first + size), len(grid) - 1)
        arrays = {name: jnp.asarray(v[indices]) for name, v in rows.items()}
        return arrays if sharding is None else jax.device_put(arrays, sharding)

    started = time.perf_counter()
    size, compiled = fit_chunks(
        lambda size: trials.compile(values(0, size), device_seeds),
        len(grid),
        trials_at_once or len(grid),
        mesh.size if mesh else 1,
        device_memory() if memory_limit is None else memory_limit,
    )
    chunks.compile_seconds += time.perf_counter() - started
    chunks.state_bytes_per_parameter = compiled.state_bytes_per_parameter
    try:
        with interrupts_between_calls() as raise_pending:
            while (first := chunks.finished) < len(grid):

                def report(done: int, first: int = first) -> None:
                    rows_of_chunk = min(size, len(grid) - first)
                    row_steps = first * steps + rows_of_chunk * done
                    on_progress(
                        row_steps * len(grid.seeds),
                        len(grid) * steps * len(grid.seeds),
                    )
                    raise_pending()

                part = compiled.run(values(first, size), device_seeds, steps, report)
                chunks.add(part)
    except KeyboardInterrupt:
        if not chunks.finished:
            raise
    return chunks.result()


def _sharding_of_rows(mesh: Mesh | None) -> NamedSharding | None:
    """Sharding that splits the rows over all axes of a mesh."""
    if mesh is None:
        return None
    kinds = (AxisType.Auto,) * len(mesh.axis_names)
    auto = Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
    axes = PartitionSpec(auto.axis_names)
    return NamedSharding(auto, axes)


def _rows(
    hyperparameters: Mapping[str, Any], zipped: bool
) -> dict[str, np.ndarray[Any, Any]]:
    """Values of each hyperparameter in every row of the grid, or in the zipped rows."""
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
