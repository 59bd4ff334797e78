"""States that differ between workers, and their specs."""

from typing import Any

import jax
import optax
from jax.sharding import PartitionSpec

from optax_extras._core.leaves import is_none
from optax_extras._core.placement import (
    Divided,
    PerWorker,
    is_placed,
    layout_of,
    spec_of,
    zeros_of,
)
from optax_extras.typing import AxisName


def per_worker_zeros(params: Any, axis_name: AxisName, workers: int) -> PerWorker:
    """float32 zeros for each worker, in the structure of parameters."""
    treedef: Any
    flat, treedef = jax.tree.flatten(params)
    layouts = [layout_of(leaf) for leaf in flat]
    specs = [PartitionSpec(axis_name, *one.spec) for one in layouts]
    shapes = [(workers, *one.whole) for one in layouts]
    made = zeros_of(shapes, specs, layouts, axis_name)
    return PerWorker(treedef.unflatten(made))


def own(node: PerWorker, like: Any) -> list[Any]:
    """A worker's own arrays, (1, *shape), by the leaves of a tree; None for none.

    They keep their first axis: without it, XLA would copy them into the new state.
    """
    treedef: Any = jax.tree.structure(like, is_leaf=is_none)
    try:
        arrays: list[Any] = treedef.flatten_up_to(node.value)
    except ValueError as error:
        raise ValueError(
            "`updates` must have the structure of the parameters given to `init`, got"
            f" {treedef} for a state of {jax.tree.structure(node.value)}"
        ) from error
    for array in arrays:
        if array is not None and len(array) != 1:
            raise ValueError(
                f"the state must be given to `jax.shard_map` in parts, but has all"
                f" {len(array)} workers' here: use `worker_specs` as its specs"
            )
    return arrays


def with_own(node: PerWorker, arrays: list[Any], like: Any) -> PerWorker:
    """The node with new arrays of this worker; None keeps what is there."""
    treedef: Any = jax.tree.structure(like, is_leaf=is_none)
    old = treedef.flatten_up_to(node.value)
    new = [
        before if array is None else array
        for array, before in zip(arrays, old, strict=True)
    ]
    return PerWorker(treedef.unflatten(new))


def worker_specs(state: Any, axis_name: AxisName) -> Any:
    """`PartitionSpec`s of a state, for `jax.shard_map` and for checkpoints.

    Args:
      state: the state of a transformation, also in a chain or of abstract arrays.
      axis_name: the axis of the workers.

    Returns:
      A tree like the state. Arrays of each worker are sharded over the axis, and all
      others as they are, if that is known, or not at all.

    Raises:
      ValueError: a part of the state belongs to workers along another axis; or
        `optax.MultiSteps` is around it, whose sums of gradients would differ between
        workers too. Take the mean of several batches in a `jax.lax.scan` instead.

    Examples:
      >>> import jax, jax.numpy as jnp, optax_extras
      >>> from optax_extras.compressors import top_k
      >>> tx = optax_extras.compressed_mean(top_k(0.1), "data", workers=8)
      >>> specs = optax_extras.worker_specs(tx.init(jnp.zeros(2000)), "data")
      >>> specs.residual.value == jax.P("data"), specs.count == jax.P()
      (True, True)
    """
    for node in jax.tree.leaves(state, is_leaf=_accumulates):
        if _accumulates(node):
            raise ValueError(
                "`state` must not be that of `optax.MultiSteps` around a part that"
                " communicates: its sums of gradients differ between workers, but have"
                " no axis for them, and it would send in every one of its steps. Take"
                " the mean of the local gradients of several batches in a"
                " `jax.lax.scan`, and then call `update` once; of local updates, it may"
                " be the inner transformation"
            )

    def specs(node: Any) -> Any:
        found: Any = jax.tree.map(spec_of, node)
        if isinstance(node, PerWorker | Divided):
            found = found._replace(value=jax.tree.map(of_worker, node.value))
        return found

    def of_worker(leaf: Any) -> PartitionSpec:
        known = spec_of(leaf)
        if known and known[0] != axis_name:
            raise ValueError(
                f"`axis_name` must be that of the state, {known[0]!r}, got"
                f" {axis_name!r}"
            )
        return known or PartitionSpec(axis_name)

    return jax.tree.map(specs, state, is_leaf=is_placed)


def _accumulates(node: Any) -> bool:
    """Whether gradients are summed before they are sent."""
    return isinstance(node, optax.MultiStepsState) and any(
        map(is_placed, jax.tree.leaves(node.inner_opt_state, is_leaf=is_placed))
    )
