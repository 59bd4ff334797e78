"""Training steps that workers share, and the bytes that they move."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from optax_extras.communication import (
    CompressedMeanState,
    DeepGradientCompressionState,
    LocalUpdatesState,
    PerWorker,
    apply_local_updates,
    local_value_and_grad,
    own_params,
    worker_params,
    worker_specs,
)
from optax_extras.communication._parameters import as_own
from optax_extras.communication._wire import moved_bytes
from optax_extras.tasks import Task
from optax_extras.tuning._points import Points, trains_apart

# States whose number of steps decides what a step computes.
_COUNTING = CompressedMeanState, DeepGradientCompressionState, LocalUpdatesState


@dataclasses.dataclass(frozen=True)
class Workers:
    """The devices among which each mini-batch is divided.

    Attributes:
      mesh: a mesh of one axis, of type Auto.
      weights: of the workers in a mean; empty where all count the same.
    """

    mesh: Mesh
    weights: tuple[int, ...] = ()

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
            plan = task.batches.plan(key, jnp.int32(0), 1)
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
        auto = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))
        sizes = task.batches.client_sizes
        return cls(auto, sizes if len(sizes) == mesh.size else ())

    @property
    def axis_name(self) -> Any:
        """The name of the mesh's axis."""
        return self.mesh.axis_names[0]

    def weighted(self, tx: Any) -> optax.GradientTransformationExtraArgs:
        """The optimizer, which is given the weight of the worker that it runs on."""
        tx = optax.with_extra_args_support(tx)
        if not self.weights:
            return tx

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            weights = jnp.asarray(self.weights, jnp.float32)
            weight = weights[lax.axis_index(self.axis_name)]
            return tx.update(updates, state, params, weight=weight)

        return optax.GradientTransformationExtraArgs(tx.init, update)

    def parameters(self, state: Any, params: Any) -> Any:
        """The parameters that steps take: those of each worker if they train apart."""
        if not trains_apart(state):
            return params
        return worker_params(params, self.axis_name, workers=self.mesh.size)

    def shardings(self, carry: Any) -> Any:
        """Where the carries of all rows and seeds are: what is a worker's, with it."""
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), carry)
        return jax.tree.map(
            lambda spec: NamedSharding(self.mesh, PartitionSpec(None, None, *spec)),
            worker_specs(shapes, self.axis_name),
        )

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
          carry: `parameters`, and state of the optimizer.
          batch: the whole mini-batch.
          key: of the step; each worker's differs.
          number: of the step; int32[], the same in all trials.

        Returns:
          The next carry, and the mean of the workers' losses.
        """
        axis, everywhere = self.axis_name, PartitionSpec()
        specs = worker_specs(carry, axis)
        params, state = carry
        carry = params, _at_step(state, number)
        apart, tx = isinstance(params, PerWorker), self.weighted(tx)

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
            params, own_state = _own(carry) if apart else carry
            point = points.of_gradient(own_state, params)
            value, grads = local_value_and_grad(loss, axis)(point, batch, key)
            updates, state = tx.update(grads, state, params)
            if apart:
                params = as_own(apply_local_updates(params, updates, state))
            else:
                params = optax.apply_updates(params, updates)
            return (params, state), lax.pmean(value, axis)

        stepped: tuple[Any, jax.Array] = step(carry, batch, key)
        return stepped


def _own(tree: Any) -> Any:
    """The tree with a worker's own arrays, without the workers' axis."""

    def is_of_workers(node: Any) -> bool:
        return isinstance(node, PerWorker)

    return jax.tree.map(
        lambda node: own_params(node) if is_of_workers(node) else node,
        tree,
        is_leaf=is_of_workers,
    )


def _at_step(state: Any, number: jax.Array) -> Any:
    """The same state, with a number of steps that does not differ between trials.

    Otherwise `jax.vmap` computes every density of a warm-up, and the exchange of every
    fragment, at every step.
    """

    def counts(node: Any) -> bool:
        return isinstance(node, _COUNTING)

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
        workers.weighted(tx),
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
