"""Training steps that workers share, and the bytes that they move."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jax import lax
from jax.sharding import AxisType, Mesh, PartitionSpec

from optax_extras.communication import (
    CompressedMeanState,
    DeepGradientCompressionState,
    local_value_and_grad,
    worker_specs,
)
from optax_extras.communication._wire import moved_bytes
from optax_extras.tasks import Task
from optax_extras.tuning._points import Points


@dataclasses.dataclass(frozen=True)
class Workers:
    """The devices among which each mini-batch is divided.

    Attributes:
      mesh: a mesh of one axis, of type Auto.
    """

    mesh: Mesh

    @classmethod
    def of(cls, mesh: Mesh, task: Task) -> "Workers":
        """Checks that the mini-batches of a task can be divided among a mesh.

        Raises:
          ValueError: the mesh has several axes, or the mini-batches have no first axis
            whose length is a multiple of its size.
        """
        if len(mesh.axis_names) != 1:
            raise ValueError(f"`worker_mesh` must have one axis, got {mesh.axis_names}")

        def batch(key: jax.Array) -> Any:
            plan = task.batches.plan(key, jax.numpy.int32(0), 1)
            return task.batches.take(jax.tree.map(lambda x: x[0], plan))

        shapes = [
            x.shape for x in jax.tree.leaves(jax.eval_shape(batch, jax.random.key(0)))
        ]
        if not shapes or any(not s or s[0] % mesh.size for s in shapes):
            raise ValueError(
                f"`worker_mesh` has {mesh.size} devices, and a mini-batch of task"
                f" {task.name!r} must have a multiple of that of examples along the"
                f" first axis of each of its arrays, got shapes {shapes}"
            )
        kinds = (AxisType.Auto,)
        return cls(Mesh(mesh.devices, mesh.axis_names, axis_types=kinds))

    @property
    def axis_name(self) -> Any:
        """The name of the mesh's axis."""
        return self.mesh.axis_names[0]

    def descend(
        self,
        tx: Any,
        points: Points,
        loss: Callable[[Any, Any, jax.Array], jax.Array],
        carry: Any,
        batch: Any,
        key: jax.Array,
        number: jax.Array,
    ) -> tuple[Any, jax.Array]:
        """One step, of which each worker takes the gradient of its part of the batch.

        Args:
          tx: the whole optimizer, which takes the mean over the workers.
          points: where the gradient is taken.
          loss: of parameters, a mini-batch and a key.
          carry: parameters and state of the optimizer.
          batch: the whole mini-batch.
          key: of the step; each worker's differs.
          number: of the step; int32[], the same in all trials.

        Returns:
          The next carry, and the mean of the workers' losses.
        """
        axis, everywhere = self.axis_name, PartitionSpec()
        specs = (everywhere, worker_specs(carry[1], axis))
        params, state = carry
        carry = params, _at_step(state, number)

        @partial(
            jax.shard_map,
            mesh=self.mesh,
            in_specs=(specs, PartitionSpec(axis), everywhere),
            out_specs=(specs, everywhere),
            check_vma=False,  # losses may scan from zeros, which vary over nothing
        )
        def step(carry: Any, batch: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            params, state = carry
            key = jax.random.fold_in(key, lax.axis_index(axis))
            point = points.of_gradient(state, params)
            value, grads = local_value_and_grad(loss, axis)(point, batch, key)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), lax.pmean(value, axis)

        stepped: tuple[Any, jax.Array] = step(carry, batch, key)
        return stepped


def _at_step(state: Any, number: jax.Array) -> Any:
    """The same state, with a number of steps that does not differ between trials.

    Otherwise `jax.vmap` computes every density of a warm-up at every step.
    """

    def counts(node: Any) -> bool:
        return isinstance(node, (CompressedMeanState, DeepGradientCompressionState))

    return jax.tree.map(
        lambda node: node._replace(count=number) if counts(node) else node,
        state,
        is_leaf=counts,
    )


def traffic(
    tx: optax.GradientTransformation, params: Any, workers: Workers, steps: Any
) -> np.ndarray[Any, Any]:
    """Bytes that one worker has sent and received after some steps, (2, E).

    Args:
      tx: the whole optimizer.
      params: the parameters, or their shapes and dtypes.
      workers: the workers.
      steps: numbers of steps, rising from 0, (E,).

    Raises:
      ValueError: no step sends, so that the workers would train by themselves.
    """
    moved = moved_bytes(
        tx,
        params,
        axis_name=workers.axis_name,
        workers=workers.mesh.size,
        steps=range(steps[-1]),
    )
    if workers.mesh.size > 1 and not moved.any():
        raise ValueError(
            "with `worker_mesh`, the optimizer must take the mean of the gradients over"
            f" {workers.axis_name!r}, as `compressed_mean` does, but it sends nothing"
            f" with steps={steps[-1]}"
        )
    total = np.cumsum(moved, axis=1)
    return np.concatenate([np.zeros((2, 1), np.int64), total], axis=1)[:, steps]
