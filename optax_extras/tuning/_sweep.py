"""Many trials as one program: hyperparameters are data, and trials a mapped axis."""

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from optax_extras.tuning._result import SweepResult
from optax_extras.tuning._task import Task
from optax_extras.tuning._training import descend, keyed, keys_of_seed, seeds_of

MakeOptimizer = Callable[..., optax.GradientTransformation]


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
    mesh: Mesh | None = None,
    resume: str | Path | None = None,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
) -> SweepResult:
    """Trains a task with every value of some hyperparameters and every seed.

    All trials run as one compiled program, a `jax.vmap` over hyperparameters and seeds,
    which is compiled once whatever the values are. What a trial draws depends on its
    seed alone: its numbers are those of the same trial run alone, to the rounding of
    products of other shapes. A trial that diverges has infinities or NaN in its own row
    and harms no other.

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
      trials_at_once: rows of hyperparameters, each with all seeds, in memory together;
        all by default. It does not change a result.
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
        number of steps is below 1, the loss is not a scalar, or ``resume`` is the file
        of another sweep.
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
    ):
        if number < 1:
            raise ValueError(f"`{name}` must be >= 1, got {number}")
    rows = _rows(hyperparameters, zipped)
    _check_names(make_optimizer, rows)
    seed_array = seeds_of(seeds)
    _check_loss(task)
    if mesh is not None and (trials_at_once or 0) % mesh.size:
        raise ValueError(
            f"`trials_at_once` must be a multiple of the mesh's {mesh.size} devices,"
            f" got {trials_at_once}"
        )
    count = len(next(iter(rows.values())))
    size = trials_at_once or (-(-count // mesh.size) * mesh.size if mesh else count)
    evaluated = np.array([*range(0, steps, eval_every), steps])
    started = time.perf_counter()

    def result(parts: Sequence[Any]) -> SweepResult:
        metrics, losses = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        return SweepResult(
            task=task.name,
            hyperparameters={k: v[: len(losses)] for k, v in rows.items()},
            seeds=seed_array,
            steps=evaluated,
            metrics=metrics,
            losses=losses,
            seconds=time.perf_counter() - started,
            planned=count,
        )

    parts = _read(resume, rows, seed_array, evaluated, task.name)
    run = _compile(task, make_optimizer, steps, eval_every)
    per_row = len(seed_array) * steps
    try:
        for first in range(sum(len(part[1]) for part in parts), count, size):
            kept = min(size, count - first)

            def report(done: int, first: int = first, kept: int = kept) -> None:
                on_progress(
                    first * per_row + done * kept * len(seed_array), count * per_row
                )

            # The last chunk is filled up with its last row, to have the others' shape.
            indices = np.minimum(np.arange(first, first + size), count - 1)
            chunk = _place({name: v[indices] for name, v in rows.items()}, mesh)
            part = run(chunk, jnp.asarray(seed_array, jnp.uint32), report)
            parts.append(jax.tree.map(lambda x: x[:kept], part))  # noqa: B023
            if resume is not None and jax.process_index() == 0:
                result(parts).save(resume)
    except KeyboardInterrupt:
        if not parts:
            raise
    return result(parts)


def _read(
    path: str | Path | None,
    rows: Mapping[str, np.ndarray[Any, Any]],
    seeds: np.ndarray[Any, Any],
    evaluated: np.ndarray[Any, Any],
    task: str,
) -> list[Any]:
    """The chunks of an interrupted sweep, which must be this one; none at first."""
    if path is None or not Path(path).exists():
        return []
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
    return [(found.metrics, found.losses)]


def _place(values: dict[str, np.ndarray[Any, Any]], mesh: Mesh | None) -> Any:
    """The values as arrays, of which each device of a mesh has its share."""
    arrays = {name: jnp.asarray(v) for name, v in values.items()}
    if mesh is None:
        return arrays
    kinds = (AxisType.Auto,) * len(mesh.axis_names)
    auto = Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
    axes = PartitionSpec(auto.axis_names)  # type: ignore[no-untyped-call]
    return jax.device_put(arrays, NamedSharding(auto, axes))


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


def _check_loss(task: Task) -> None:
    def loss(key: jax.Array) -> jax.Array:
        plan = task.batches.plan(key, jnp.int32(0), 1)
        batch = task.batches.take(jax.tree.map(lambda x: x[0], plan))
        return task.loss(task.init(key), batch, key)

    shape = jax.eval_shape(loss, jax.random.key(0)).shape
    if shape:
        raise ValueError(
            f"the loss of task {task.name!r} must be a scalar, got shape {shape}"
        )


def _compile(
    task: Task, make_optimizer: MakeOptimizer, steps: int, eval_every: int
) -> Callable[..., Any]:
    """A function that runs the trials of some rows and seeds: (metrics, losses)."""

    def start(values: Any, seed: jax.Array) -> Any:
        keys = keys_of_seed(seed)
        params = task.init(keys.init)
        return (
            params,
            keyed(make_optimizer, keys)(**values).init(params),
        ), task.evaluate(params)

    def advance(carry: Any, values: Any, seed: jax.Array, first: jax.Array) -> Any:
        keys = keys_of_seed(seed)
        step = partial(descend, task, keyed(make_optimizer, keys)(**values), keys)

        def guarded(carry: Any, entry: Any) -> Any:
            # The last segment may end early, and is not compiled again for it.
            inside = entry[0] < steps
            return jax.lax.cond(
                inside, step, lambda carry, _: (carry, jnp.zeros(())), carry, entry
            )

        numbers = first + jnp.arange(eval_every, dtype=jnp.int32)
        plan = task.batches.plan(keys.batches, first, eval_every)
        carry, losses = jax.lax.scan(guarded, carry, (numbers, plan))
        mean = jnp.sum(losses) / jnp.minimum(eval_every, steps - first)
        return carry, task.evaluate(carry[0]), mean

    def over_trials(function: Callable[..., Any], carries: int, others: int) -> Any:
        """Maps over seeds inside and rows outside, which then share their data."""
        inner = jax.vmap(function, (0,) * carries + (None, 0) + (None,) * others)
        return jax.vmap(inner, (0,) * carries + (0, None) + (None,) * others)

    start_all = jax.jit(over_trials(start, 0, 0))
    advance_all = jax.jit(over_trials(advance, 1, 1), donate_argnums=0)

    def run(values: Any, seeds: Any, report: Callable[[int], object]) -> Any:
        carry, metrics = start_all(values, seeds)
        rows, losses = [_fetch(metrics)], []
        for first in range(0, steps, eval_every):
            carry, metrics, loss = advance_all(carry, values, seeds, jnp.int32(first))
            rows.append(_fetch(metrics))
            losses.append(_fetch(loss))
            report(min(first + eval_every, steps))
        stacked = jax.tree.map(lambda *x: np.stack(x, axis=-1), *rows)
        return stacked, np.stack(losses, axis=-1)

    return run


def _fetch(tree: Any) -> Any:
    """Arrays on the host, also those of which other processes have a part."""

    def leaf(x: jax.Array) -> np.ndarray[Any, Any]:
        if x.is_fully_addressable or x.is_fully_replicated:
            return np.asarray(x)
        gathered: np.ndarray[Any, Any] = multihost_utils.process_allgather(
            x, tiled=True
        )
        return gathered

    return jax.tree.map(leaf, tree)
