"""Checks of a task before anything is trained, by abstract evaluation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras.tasks import Task
from optax_extras.tuning._calls import check_takes, noted

# Names that a result gives to what every task has.
TAKEN = ("loss", "mean_loss", "seed", "step")
_PLANNED = 2


def check_task(task: Task) -> None:
    """Traces the functions of a task once, and checks what they take and return.

    Raises:
      TypeError: a function takes other arguments; parameters or the loss are not
        floating-point; ``evaluate`` returns no dict of numbers by name.
      ValueError: there are no parameters, the loss or a metric is not a scalar, a
        plan's entries are not stacked, a metric has a reserved name, or the goal has an
        unknown metric.
    """
    raised: list[Exception] = []

    def trace(key: jax.Array, start: jax.Array) -> None:
        # Raised outside, an exception has no frames and no remarks of JAX's.
        try:
            _check(task, key, start)
        except Exception as error:
            raised.append(error)

    jax.eval_shape(trace, jax.random.key(0), jnp.int32(0))
    for error in raised:
        raise error


def _check(task: Task, key: jax.Array, start: jax.Array) -> None:
    params = _call(task, "init", task.init, key=key)
    _check_params(task, params)
    steps = {"key": key, "first step": start, "number of steps": _PLANNED}
    plan = _call(task, "batches.plan", task.batches.plan, **steps)
    _check_plan(task, plan)
    entry = jax.tree.map(lambda x: x[0], plan)
    batch = _call(task, "batches.take", task.batches.take, entry=entry)
    given = {"parameters": params, "mini-batch": batch, "key": key}
    _check_loss(task, _call(task, "loss", task.loss, **given))
    _check_metrics(task, _call(task, "evaluate", task.evaluate, parameters=params))


def _call(task: Task, name: str, function: Callable[..., Any], **arguments: Any) -> Any:
    """Calls a function of the task with arguments that are named in messages only."""
    called = f"`{name}` of task {task.name!r}"
    check_takes(function, called, list(arguments))
    with noted(called, *arguments.values()):
        return function(*arguments.values())


def _check_params(task: Task, params: Any) -> None:
    for path, leaf in jax.tree.leaves_with_path(params):
        dtype = _dtype(leaf)
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
            found = f"a {type(leaf).__name__}" if dtype is None else dtype
            raise TypeError(
                f"`init` of task {task.name!r} must return floating-point or complex"
                f" arrays, got {found} at `{jax.tree_util.keystr(path)}`"
            )
    if not jax.tree.leaves(params):
        raise ValueError(f"`init` of task {task.name!r} must return some parameters")


def _check_plan(task: Task, plan: Any) -> None:
    for leaf in jax.tree.leaves(plan):
        if jnp.shape(leaf)[:1] != (_PLANNED,):
            raise ValueError(
                f"`batches.plan` of task {task.name!r} must stack the entries of the"
                f" steps along a leading axis, of {_PLANNED} here, got shape"
                f" {jnp.shape(leaf)}"
            )


def _check_loss(task: Task, loss: Any) -> None:
    dtype = _check_scalar(f"the loss of task {task.name!r}", loss)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"the loss of task {task.name!r} must be floating-point, got {dtype}"
        )


def _check_metrics(task: Task, metrics: Any) -> None:
    if not isinstance(metrics, dict):
        raise TypeError(
            f"`evaluate` of task {task.name!r} must return a dict of metrics by name,"
            f" got a {type(metrics).__name__}"
        )
    for name, value in metrics.items():
        called = f"the metric {name!r} of task {task.name!r}"
        if not isinstance(name, str):
            raise TypeError(f"{called} must be named by a string")
        if name in TAKEN:
            raise ValueError(
                f"{called} must have another name: {', '.join(TAKEN)} are taken"
            )
        dtype = _check_scalar(called, value)
        if not any(jnp.issubdtype(dtype, t) for t in (jnp.floating, jnp.integer)):
            raise TypeError(f"{called} must be a real number, got {dtype}")
    known = ("loss", "mean_loss", *metrics)
    for field in ("metric", "reported"):
        wanted = getattr(task.goal, field)
        if wanted not in known:
            raise ValueError(
                f"`{field}` of the goal of task {task.name!r} must be one of"
                f" {', '.join(known)}, got {wanted!r}"
            )


def _check_scalar(called: str, value: Any) -> Any:
    """Checks that a value is a 0-d array or a number, and returns its dtype."""
    dtype = _dtype(value)
    if dtype is None:
        raise TypeError(f"{called} must be a scalar, got a {type(value).__name__}")
    if jnp.shape(value):
        raise ValueError(f"{called} must be a scalar, got shape {jnp.shape(value)}")
    return dtype


def _dtype(value: Any) -> Any:
    """Dtype of an array or a number; None for all else."""
    numbers = (jax.Array, np.ndarray, np.generic, int, float)
    return jnp.result_type(value) if isinstance(value, numbers) else None
