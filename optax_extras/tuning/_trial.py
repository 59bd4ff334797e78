"""One trial: its keys, and the training step that `lax.scan` repeats."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from optax_extras.tasks import Task
from optax_extras.tuning._points import Points
from optax_extras.tuning._workers import Workers


class TrialKeys(NamedTuple):
    """Random keys of one trial."""

    init: jax.Array  # initial parameters
    batches: jax.Array  # order of the data
    loss: jax.Array  # loss; folded with the step
    optimizer: jax.Array  # optimizers that draw


def keys_of_seed(seed: jax.Array) -> TrialKeys:
    """Keys of a trial, which depend on its seed alone."""
    return TrialKeys(*jax.random.split(jax.random.key(seed), 4))


def seeds_of(seeds: int | Sequence[int]) -> np.ndarray[Any, Any]:
    """Seeds as an array, from their number or one by one.

    Raises:
      ValueError: there are none, or they are not integers from 0 to 2**32 - 1.
    """
    array = np.asarray(seeds)
    if (array.size and array.dtype.kind not in "iu") or array.ndim > 1:
        raise ValueError(
            f"`seeds` must be a number of seeds or a list of integers, got {seeds!r}"
        )
    if not array.ndim:
        array = np.arange(array.item())
    if not array.size:
        raise ValueError(f"`seeds` must not be empty, got {seeds!r}")
    if array.min() < 0 or array.max() >= 2**32:
        raise ValueError(f"`seeds` must be from 0 to 2**32 - 1, got {seeds!r}")
    return array


def initial_carry(
    tx: Any, params: Any, workers: Workers | None = None
) -> tuple[Any, Any]:
    """The first carry of `descend`, from the initial parameters."""
    state = tx.init(params)
    return params if workers is None else workers.parameters(state, params), state


def descend(
    task: Task,
    tx: Any,
    keys: TrialKeys,
    points: Points,
    carry: Any,
    entry: Any,
    workers: Workers | None = None,
) -> tuple[Any, jax.Array]:
    """One training step in the form that `lax.scan` takes.

    Args:
      task: what is trained.
      tx: the whole optimizer.
      keys: keys of the trial.
      points: where the gradient is taken.
      carry: parameters and state of the optimizer, as of `initial_carry`.
      entry: number of the step, and its entry of the plan of mini-batches.
      workers: who divide the mini-batch among them.

    Returns:
      The next carry, and the loss at the point where the gradient was taken.
    """
    params, state = carry
    step, plan = entry
    batch, key = task.batches.take(plan), jax.random.fold_in(keys.loss, step)
    if workers is None:
        point = points.of_gradient(state, params)
        value, grads = jax.value_and_grad(task.loss)(point, batch, key)
        updates, state = tx.update(grads, state, params)
        carry = optax.apply_updates(params, updates), state
    else:
        carry, value = workers.descend(tx, points, task.loss, carry, batch, key, step)
    # Sums of half-precision losses would be rounded at every step.
    return carry, value.astype(float)
