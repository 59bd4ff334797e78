"""Parts of a state that differ between devices, and where they are."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from optax_extras._core.axes import names_of
from optax_extras._core.paths import owner
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


def axes_of(layouts: Sequence[Layout]) -> tuple[Any, ...]:
    """The axes of all layouts, each once."""
    return tuple(dict.fromkeys(name for one in layouts for name in one.axes))


def shards(layouts: Sequence[Layout], axes: Sequence[Any]) -> int:
    """The number of shards along axes of the layouts' meshes."""
    sizes = {k: n for one in layouts if one.mesh for k, n in one.mesh.shape.items()}
    return math.prod(sizes[name] for name in axes)


class PerWorker(NamedTuple):
    """One array for each worker, along a first axis, of each leaf."""

    value: Any


class Divided(NamedTuple):
    """Rows of which each worker has a part, (workers, shards · rows of it, ...)."""

    value: Any
    rows: jax.Array  # of a shard, in all parts; int32[]


class PerShard(NamedTuple):
    """One array for each shard of a parameter, along a first axis."""

    value: Any


def is_placed(node: Any) -> bool:
    """Whether a node is one of the above; an `is_leaf` for functions of trees."""
    return isinstance(node, PerWorker | Divided | PerShard)


def zeros(
    shape: Sequence[int],
    spec: PartitionSpec,
    layouts: Sequence[Layout],
    axis_name: AxisName,
) -> jax.Array:
    """float32 zeros, made in parts on the devices of the axis if these are known."""
    return zeros_of([shape], [spec], layouts, axis_name)[0]


def zeros_of(
    shapes: Sequence[Sequence[int]],
    specs: Sequence[PartitionSpec],
    layouts: Sequence[Layout],
    axis_name: AxisName,
) -> list[jax.Array]:
    """The same for several shapes, each with a spec, by one program for all of them."""
    places = tuple(where(spec, layouts, axis_name) for spec in specs)
    return _program_of_zeros(tuple(map(tuple, shapes)), places)()


@functools.lru_cache(maxsize=64)
def _program_of_zeros(
    shapes: tuple[tuple[int, ...], ...], places: tuple[Any, ...]
) -> Callable[[], list[jax.Array]]:
    def make() -> list[jax.Array]:
        return [jnp.zeros(shape, jnp.float32) for shape in shapes]

    program: Callable[[], list[jax.Array]] = jax.jit(make, out_shardings=list(places))
    return program


def placed(
    x: jax.Array, spec: PartitionSpec, layouts: Sequence[Layout], axis_name: AxisName
) -> jax.Array:
    """An array, on the devices of the axis if these are known."""
    found = where(spec, layouts, axis_name)
    return x if found is None else jax.jit(lambda x: x, out_shardings=found)(x)


def where(spec: PartitionSpec, layouts: Sequence[Layout], axis_name: AxisName) -> Any:
    """Sharding over the devices of `jax.set_mesh` or of the parameters, or None."""
    names = set(names_of(axis_name))
    if names <= set(jax.sharding.get_abstract_mesh().axis_names):
        return spec
    meshes = (one.mesh for one in layouts if one.mesh is not None)
    known = (mesh for mesh in meshes if names <= set(mesh.axis_names))
    return next((NamedSharding(mesh, spec) for mesh in known), None)


def spec_of(leaf: Any) -> PartitionSpec:
    """The spec of an array that is sharded, or an empty one."""
    sharding = getattr(leaf, "sharding", None)
    return sharding.spec if isinstance(sharding, NamedSharding) else PartitionSpec()


def explicit_sharding(leaf: Any) -> Any:
    """The sharding of an array on an explicit mesh, where its type has it, or None."""
    sharding = jax.typeof(leaf).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def placed_like(state: Any, params: Any, stacked: int) -> Any:
    """A state whose arrays lie where the parameters are, as far as these tell.

    An array has the sharding of the parameter with whose path its own path ends, if it
    has its shape; else that of the axes that stack all parameters, if these agree.

    Args:
      state: of stacked parameters.
      params: the parameters.
      stacked: the number of axes in front that stack them.
    """
    shardings = {
        path: (leaf.shape, leaf.sharding)
        for path, leaf in jax.tree.leaves_with_path(params)
        if not isinstance(leaf, jax.core.Tracer)
        and isinstance(getattr(leaf, "sharding", None), NamedSharding)
    }
    of_stacks = {
        NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:stacked]))
        for _, sharding in shardings.values()
    }

    def place(path: Any, x: Any) -> Any:
        shape, sharding = owner(path, shardings) or shardings.get((), (None, None))
        if shape == jnp.shape(x):
            return jax.device_put(x, sharding)
        return jax.device_put(x, *of_stacks) if len(of_stacks) == 1 else x

    return jax.tree.map_with_path(place, state)
