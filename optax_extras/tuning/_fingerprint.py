"""Fingerprints of trials: whether two sweeps compute the same."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras._core.factories import MakeOptimizer, keyed
from optax_extras.tasks import Task
from optax_extras.tuning._files import digest
from optax_extras.tuning._points import Points
from optax_extras.tuning._trial import descend, initial_carry, keys_of_seed
from optax_extras.tuning._workers import Workers


def fingerprint(
    task: Task,
    make_optimizer: MakeOptimizer,
    points: Points,
    values: Mapping[str, Any],
    workers: Workers | None = None,
) -> str:
    """Digest of the program of a trial: a first step, its loss and its metrics.

    The program is traced and not compiled. Other data, other constants and other
    versions of JAX or optax that trace something else change the digest; values of
    hyperparameters, seeds and the number of steps do not.

    Args:
      task: what is trained.
      make_optimizer: factory of the whole optimizer.
      points: where gradients are taken and metrics are evaluated.
      values: a value of each hyperparameter.
      workers: who divide each mini-batch among them.
    """

    def trial(values: Mapping[str, jax.Array], seed: jax.Array) -> Any:
        keys = keys_of_seed(seed)
        tx = keyed(make_optimizer, keys.optimizer)(**values)
        first = jnp.int32(0)
        plan = jax.tree.map(lambda x: x[0], task.batches.plan(keys.batches, first, 1))
        carry = initial_carry(tx, task.init(keys.init), workers)
        carry, loss = descend(task, tx, keys, points, carry, (first, plan), workers)
        params, state = carry
        return carry, loss, task.evaluate(points.of_evaluation(state, params))

    arrays = {name: jnp.asarray(value) for name, value in values.items()}
    program, shapes = jax.make_jaxpr(trial, return_shape=True)(arrays, jnp.uint32(0))
    # Functions are printed with their addresses.
    text = re.sub(r" at 0x[0-9a-f]+", "", f"{program.jaxpr}\n{shapes}")
    constants = {str(i): np.asarray(x) for i, x in enumerate(program.consts)}
    return digest({"program": np.array(text), **constants})
