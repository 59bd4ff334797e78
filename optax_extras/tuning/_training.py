"""One training run, compiled as a scan over mini-batches."""

import dataclasses
import inspect
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras.tuning._task import Task


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training run gave.

    Attributes:
      steps: the steps at which metrics were taken, from 0; int, shape (n,).
      metrics: the task's metrics at those steps; each of shape (n,).
      steps_per_second: speed of the compiled loop without compilation and metrics, the
        median over its calls.
      compile_seconds: time to trace and compile the loop.
      state_bytes_per_parameter: size of the optimizer's state.
    """

    steps: np.ndarray[Any, Any]
    metrics: dict[str, np.ndarray[Any, Any]]
    steps_per_second: float
    compile_seconds: float
    state_bytes_per_parameter: float


class TrialKeys(NamedTuple):
    """The keys of one run."""

    init: jax.Array  # for the initial parameters
    batches: jax.Array  # for the order of the data
    loss: jax.Array  # for the loss; folded with the step
    optimizer: jax.Array  # for an optimizer that draws


def keys_of_seed(seed: jax.Array) -> TrialKeys:
    """The keys of a run, which depend on its seed alone."""
    return TrialKeys(*jax.random.split(jax.random.key(seed), 4))


def seeds_of(seeds: int | Sequence[int]) -> np.ndarray[Any, Any]:
    """The seeds of some runs, from their number or one by one."""
    array = np.asarray(range(seeds) if isinstance(seeds, int) else seeds)
    if not array.size:
        raise ValueError(f"`seeds` must not be empty, got {seeds}")
    return array


def check_loss(task: Task) -> None:
    """Raises ValueError if the loss of a task is not a scalar; nothing is run."""

    def loss(key: jax.Array) -> jax.Array:
        plan = task.batches.plan(key, jnp.int32(0), 1)
        batch = task.batches.take(jax.tree.map(lambda x: x[0], plan))
        return task.loss(task.init(key), batch, key)

    shape = jax.eval_shape(loss, jax.random.key(0)).shape
    if shape:
        raise ValueError(
            f"the loss of task {task.name!r} must be a scalar, got shape {shape}"
        )


def keyed(make_optimizer: Callable[..., Any], keys: TrialKeys) -> Callable[..., Any]:
    """A factory of the whole optimizer that gives `key` to one that takes it."""
    if "key" in inspect.signature(make_optimizer).parameters:
        make_optimizer = partial(make_optimizer, key=keys.optimizer)
    return lambda **values: optax.with_extra_args_support(make_optimizer(**values))


def descend(
    task: Task, tx: Any, keys: TrialKeys, carry: Any, entry: Any
) -> tuple[Any, jax.Array]:
    """One step of a scan over (step, plan): (params, state) and the loss before it."""
    params, state = carry
    step, plan = entry

    def loss(params: Any) -> jax.Array:
        key = jax.random.fold_in(keys.loss, step)
        return task.loss(params, task.batches.take(plan), key)

    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), value


def train(
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    seed: int = 0,
    eval_every: int = 50,
    on_progress: Callable[[int], object] = lambda step: None,
) -> TrainingResult:
    """Trains a task's parameters with an optimizer.

    The loop is one jit-compiled `lax.scan` over ``eval_every`` mini-batches, called
    until ``steps`` are done. Initial parameters and the order of the data depend on
    ``seed`` alone, so that optimizers meet the same ones.

    Args:
      task: what to train.
      optimizer: the whole optimizer, with its learning rate.
      steps: number of updates, at least 1.
      seed: for the initial parameters and the mini-batches.
      eval_every: updates between metrics, at least 1.
      on_progress: called with the number of updates done.

    Returns:
      Metrics, speed and memory of the run.

    Raises:
      ValueError: ``steps`` or ``eval_every`` is below 1, or the loss is not a scalar.
    """
    for name, value in (("steps", steps), ("eval_every", eval_every)):
        if value < 1:
            raise ValueError(f"`{name}` must be >= 1, got {value}")
    check_loss(task)
    keys = keys_of_seed(jnp.uint32(seed))
    tx = optax.with_extra_args_support(optimizer)

    @partial(jax.jit, donate_argnums=0, static_argnames="length")
    def run(carry: Any, start: jax.Array, *, length: int) -> Any:
        steps = start + jnp.arange(length, dtype=jnp.int32)
        plan = task.batches.plan(keys.batches, start, length)
        return jax.lax.scan(partial(descend, task, tx, keys), carry, (steps, plan))[0]

    metrics = jax.jit(task.evaluate)

    def evaluate(params: Any) -> dict[str, Any]:
        # Fetched at once, so that the next call of the loop has the device to itself.
        return jax.device_get(metrics(params))  # type: ignore[no-any-return]

    params = jax.jit(task.init)(keys.init)
    carry = (params, jax.jit(tx.init)(params))
    parameters = sum(p.size for p in jax.tree.leaves(params))
    state_bytes = sum(s.nbytes for s in jax.tree.leaves(carry[1]))

    starts = range(0, steps, eval_every)
    lengths = [min(eval_every, steps - start) for start in starts]
    started = time.perf_counter()
    compiled = {
        length: run.lower(carry, jnp.int32(0), length=length).compile()
        for length in set(lengths)
    }
    compile_seconds = time.perf_counter() - started

    rows, speeds = [evaluate(params)], []
    for start, length in zip(starts, lengths, strict=True):
        started = time.perf_counter()
        carry = compiled[length](carry, jnp.int32(start))
        jax.block_until_ready(carry)  # type: ignore[no-untyped-call]
        speeds.append(length / (time.perf_counter() - started))
        rows.append(evaluate(carry[0]))
        on_progress(start + length)
    return TrainingResult(
        steps=np.array([0, *(s + n for s, n in zip(starts, lengths, strict=True))]),
        metrics={name: np.array([row[name] for row in rows]) for name in rows[0]},
        steps_per_second=float(np.median(speeds)),
        compile_seconds=compile_seconds,
        state_bytes_per_parameter=state_bytes / parameters,
    )
