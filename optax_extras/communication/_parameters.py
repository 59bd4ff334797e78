"""Parameters that differ between workers, one array for each of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from optax_extras._core import checks
from optax_extras._core.placement import PerWorker, layout_of, spec_of, where
from optax_extras.typing import AxisName


def worker_params(params: Any, axis_name: AxisName, *, workers: int) -> PerWorker:
    """Copies of parameters for each worker, to be trained apart by `local_updates`.

    Use it at the start, and to continue from plain parameters that were saved. Give
    `jax.shard_map` the specs of `worker_specs`; inside, `local_value_and_grad` and
    `update` take the part of a worker as it is.

    Args:
      params: the parameters, outside of `jax.shard_map`.
      axis_name: the axis of the workers, or a tuple of axes.
      workers: N, the size of that axis.

    Returns:
      The parameters with an axis for the workers in front, (N, *shape), each copy on
      its worker's device if the mesh is known: from `jax.set_mesh`, or from the
      parameters. `PerWorker.value` is the tree.

    Raises:
      ValueError: ``workers`` is below 1.
      TypeError: ``workers`` is not an int.

    Examples:
      >>> import jax.numpy as jnp, optax_extras
      >>> params = optax_extras.worker_params({"w": jnp.ones(3)}, "data", workers=4)
      >>> params.value["w"].shape
      (4, 3)
    """
    workers = checks.positive_integer("workers", workers)
    return repeated(params, axis_name, workers)


def repeated(tree: Any, axis_name: AxisName, workers: int) -> PerWorker:
    """Copies of the arrays of a tree, made in parts on the devices of the workers."""
    tree = jax.tree.map(jnp.asarray, tree)
    layouts = [layout_of(leaf) for leaf in jax.tree.leaves(tree)]

    def place(leaf: Any) -> Any:
        return where(PartitionSpec(axis_name, *spec_of(leaf)), layouts, axis_name)

    def copies(tree: Any) -> Any:
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x, (workers, *x.shape)).astype(x.dtype), tree
        )

    make = jax.jit(copies, out_shardings=jax.tree.map(place, tree))
    return PerWorker(make(tree))


def own_params(params: PerWorker) -> Any:
    """This worker's parameters, inside of `jax.shard_map`, without the workers' axis.

    Args:
      params: as `worker_params` made them, or any other arrays of each worker.

    Returns:
      The tree, with arrays of a worker's own shapes.

    Raises:
      ValueError: the arrays are those of several workers, because `jax.shard_map` was
        not given the specs of `worker_specs`.

    Examples:
      >>> import jax.numpy as jnp, optax_extras
      >>> params = optax_extras.worker_params(jnp.ones(3), "data", workers=1)
      >>> optax_extras.own_params(params).shape
      (3,)
    """

    def own(x: Any) -> Any:
        if x.shape[:1] != (1,):
            raise ValueError(
                "the arrays of the workers must be given to `jax.shard_map` in parts,"
                f" but one has the shape {x.shape} here: use `worker_specs` as their"
                " specs"
            )
        return x.reshape(x.shape[1:])

    return jax.tree.map(own, params.value)


def as_own(tree: Any) -> PerWorker:
    """A worker's arrays, with the workers' axis."""
    return PerWorker(jax.tree.map(lambda x: x.reshape(1, *x.shape), tree))
