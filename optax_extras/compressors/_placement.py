"""Parts of a state that differ between devices, and where they are."""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from optax_extras.typing import AxisName


class Layout(NamedTuple):
    """How a parameter lies on devices that are no workers.

    A complex parameter is two real ones along a first axis.

    Attributes:
      whole: its shape.
      shape: its shape on a device.
      spec: the axes that its dimensions are sharded over.
      mesh: their mesh, if it is known.
    """

    whole: tuple[int, ...]
    shape: tuple[int, ...]
    spec: PartitionSpec
    mesh: Any

    @property
    def axes(self) -> tuple[Any, ...]:
        """The axes, in the order of its dimensions."""
        entries = (e if isinstance(e, tuple) else (e,) for e in self.spec)
        return tuple(name for entry in entries for name in entry if name is not None)


def layout_of(leaf: Any) -> Layout:
    """How a parameter lies on the devices, as far as its sharding tells."""
    whole = shape = np.shape(leaf)
    spec, mesh = PartitionSpec(), None
    for of in (leaf, jax.typeof(leaf)):  # an array, or under an explicit mesh its type
        sharding = getattr(of, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.axis_names:
            shape, spec = sharding.shard_shape(whole), sharding.spec
            mesh = sharding.mesh
            break
    if jnp.iscomplexobj(leaf):
        whole, shape, spec = (2, *whole), (2, *shape), PartitionSpec(None, *spec)
    return Layout(whole, tuple(shape), spec, mesh)


def shards(layouts: Sequence[Layout], axes: Sequence[Any]) -> int:
    """The number of shards along axes of the layouts' meshes."""
    sizes = {k: n for one in layouts if one.mesh for k, n in one.mesh.shape.items()}
    return math.prod(sizes[name] for name in axes)


@dataclasses.dataclass(frozen=True)
class Placed:
    """Arrays that a state keeps in parts, one on each device along some axes.

    Attributes:
      value: the arrays; the first axis of each is sharded.
      specs: their `PartitionSpec`s, in the order of the leaves.
    """

    value: Any
    specs: tuple[PartitionSpec, ...]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["value"],
    meta_fields=["specs"],
)
@dataclasses.dataclass(frozen=True)
class PerWorker(Placed):
    """One array for each worker, along a first axis; all are of equal rank."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["value"],
    meta_fields=["specs", "rows"],
)
@dataclasses.dataclass(frozen=True)
class Divided(Placed):
    """Arrays of which each worker has a part: (workers, shards · rows of it, ...).

    Attributes:
      rows: the rows that matter of a shard, in all its parts; the others are zero.
    """

    rows: int


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["value"],
    meta_fields=["specs"],
)
@dataclasses.dataclass(frozen=True)
class PerShard(Placed):
    """One array for each shard of a parameter, along a first axis."""


def is_placed(node: Any) -> bool:
    """Whether a node is `Placed`; an `is_leaf` for functions of trees."""
    return isinstance(node, Placed)


def zeros(
    shape: Sequence[int],
    spec: PartitionSpec,
    layouts: Sequence[Layout],
    axis_name: AxisName,
) -> jax.Array:
    """float32 zeros, made in parts on the devices of the axis if these are known."""
    where = _where(spec, layouts, axis_name)
    if where is None:
        return jnp.zeros(shape)
    made: jax.Array = jax.jit(lambda: jnp.zeros(shape), out_shardings=where)()
    return made


def placed(
    x: jax.Array, spec: PartitionSpec, layouts: Sequence[Layout], axis_name: AxisName
) -> jax.Array:
    """An array, on the devices of the axis if these are known."""
    where = _where(spec, layouts, axis_name)
    return x if where is None else jax.jit(lambda x: x, out_shardings=where)(x)


def _where(
    spec: PartitionSpec, layouts: Sequence[Layout], axis_name: AxisName
) -> Any:
    """Sharding over the devices of `jax.set_mesh` or of the parameters, or None."""
    names = set(axis_name if isinstance(axis_name, tuple) else (axis_name,))
    if names <= set(jax.sharding.get_abstract_mesh().axis_names):
        return spec
    meshes = (one.mesh for one in layouts if one.mesh is not None)
    known = (mesh for mesh in meshes if names <= set(mesh.axis_names))
    return next((NamedSharding(mesh, spec) for mesh in known), None)
