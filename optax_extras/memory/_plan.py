"""Bytes that an optimizer needs, before any memory is taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import optax
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from optax_extras._core.importing import cause
from optax_extras._core.inner import as_transformation
from optax_extras._core.leaves import is_none
from optax_extras._core.paths import owner
from optax_extras._core.patterns import path_text
from optax_extras._core.step_memory import temporary_bytes
from optax_extras.memory._bytes_plan import BytesPlan, measured

T = TypeVar("T")


def plan_bytes(
    tx: optax.GradientTransformation, params: optax.Params, *, sharding: Any = None
) -> BytesPlan:
    """Counts the bytes that an optimizer needs for some parameters, on each device.

    Use it before a run: it tells whether the optimizer fits, which field of its state
    takes the most, and what that would take in fewer bits. Nothing is allocated; the
    step is compiled for shapes alone, which takes as long as it does for training.

    On a device, parameters take what their shardings say. An array of the state is
    sharded as the parameter with whose path its own path ends, if it has its shape, or
    as many dimensions, and these divide, as those of scales of blocks may. Other arrays
    are replicated. `jax.jit` of ``init`` does the same if it is given
    ``out_shardings=plan.state_shardings``.

    The devices need not exist. With a `jax.sharding.AbstractMesh`, all is known but the
    temporaries, because JAX compiles for real devices only. These may be devices of the
    CPU: ``jax.config.update("jax_num_cpu_devices", 256)`` at the start of a program
    makes 256 of them, for a mesh of `jax.make_mesh`.

    Temporaries are those of a compiled step of ``update`` and `optax.apply_updates`,
    with donated parameters and state. The compiler of this machine's backend counts
    them; for another kind of device they differ. What the model needs for its
    gradients is not counted, nor is the padding of arrays on TPU. What a transformation
    that communicates keeps for each worker counts for all workers, on each device;
    `worker_specs` tells how it is divided.

    Args:
      tx: any gradient transformation, or `optax.MultiSteps`.
      params: the parameters, or their `jax.ShapeDtypeStruct`.
      sharding: a `jax.sharding.NamedSharding` for all parameters, or a tree of them
        like ``params``, in which one may be for all parameters below. None stands for
        the parameters' own sharding, if they have one.

    Returns:
      A `BytesPlan`. Printed, it is a table.

    Raises:
      TypeError: ``tx`` is no transformation, a leaf of ``params`` is no array, or one
        of ``sharding`` no `jax.sharding.NamedSharding`.
      ValueError: ``params`` has no arrays, or ``sharding`` has another structure, or
        does not divide a parameter into equal parts.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec as P
      >>> params = {
      ...     "b": jax.ShapeDtypeStruct((8192,), jnp.float32),
      ...     "w": jax.ShapeDtypeStruct((8192, 8192), jnp.float32),
      ... }
      >>> mesh = AbstractMesh((16, 16), ("data", "model"))
      >>> sharding = {
      ...     "b": NamedSharding(mesh, P("model")),
      ...     "w": NamedSharding(mesh, P("data", "model")),
      ... }
      >>> plan = optax_extras.plan_bytes(optax.adam(1e-3), params, sharding=sharding)
      >>> for row in plan.fields:
      ...     print(row.field, row.bytes, row.bytes_per_device, row.int8_bytes)
      0/count 4 4 4
      0/mu 268468224 1050624 68165760
      0/nu 268468224 1050624 68165760
      >>> plan = optax_extras.plan_bytes(optax.sgd(0.1, momentum=0.9), params)
      >>> plan.bytes_per_parameter
      4.0
    """
    tx = as_transformation("tx", tx)
    shapes = _shapes(params)
    placed = _placed(shapes, _shardings(params, sharding))
    state = _placed_like(jax.eval_shape(tx.init, shapes), placed)
    leaves = jax.tree.leaves(placed)
    count = sum(math.prod(x.shape) for x in leaves)
    temporaries, why_none = _temporaries(tx, state, placed)
    return BytesPlan(
        parameter_count=count,
        parameters=measured("parameters", leaves, count),
        gradients=measured("gradients", leaves, count),
        state=measured("state", jax.tree.leaves(state), count, is_state=True),
        fields=tuple(
            measured(field, arrays, count, is_state=True)
            for field, arrays in _by_field(state, placed).items()
        ),
        temporary_bytes=temporaries,
        no_temporaries=why_none,
        state_shardings=(
            None
            if leaves[0].sharding is None
            else jax.tree.map(lambda x: x.sharding, state)
        ),
    )


def _shapes(params: Any) -> Any:
    """The parameters without values and shardings."""

    def shape(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            leaf = _with_sharding(leaf, None)
        try:
            found = jax.eval_shape(lambda x: x, leaf)
        except TypeError as error:
            raise TypeError(
                "`params` must be a tree of arrays or of jax.ShapeDtypeStruct, got"
                f" {leaf!r} at {_show(path)}"
            ) from error
        return _with_sharding(found, None)

    shapes = jax.tree.map_with_path(shape, params)
    if not jax.tree.leaves(shapes):
        raise ValueError(f"`params` must hold at least one array, got {params!r}")
    return shapes


def _shardings(params: Any, sharding: Any) -> list[NamedSharding | None]:
    """The sharding of each parameter: the one given for it, or its own."""
    given: list[NamedSharding | None] = []

    def give(one: Any, below: Any) -> None:
        if not (one is None or isinstance(one, NamedSharding)):
            raise TypeError(
                "`sharding` must be a jax.sharding.NamedSharding, or a tree of them"
                f" like `params`, got {one!r}"
            )
        for leaf in jax.tree.leaves(below):
            own = getattr(leaf, "sharding", None)
            own = own if isinstance(own, NamedSharding) else None
            given.append(own if one is None else one)

    try:
        jax.tree.map(give, sharding, params, is_leaf=is_none)
    except ValueError as error:
        raise ValueError(
            "`sharding` must be one for all of `params`, or have their structure,"
            f" {jax.tree.structure(params)}, got {sharding!r}"
        ) from error
    return given


def _placed(shapes: Any, shardings: Sequence[NamedSharding | None]) -> Any:
    """Parameters with shardings, which are replicated if only others have one."""
    elsewhere = _replicated(shardings)
    treedef: Any
    leaves, treedef = jax.tree.flatten_with_path(shapes)
    placed = []
    for (path, leaf), one in zip(leaves, shardings, strict=True):
        if not _divides(one, leaf):
            raise ValueError(
                "`sharding`, or that of a parameter itself, must divide it into equal"
                f" parts, got {one} for shape {leaf.shape} at {_show(path)}"
            )
        placed.append(_with_sharding(leaf, elsewhere if one is None else one))
    return treedef.unflatten(placed)


def _placed_like(state: Any, params: Any) -> Any:
    """A state with shardings, as far as the parameters tell."""
    of_params: dict[Any, tuple[Any, Any]] = {
        path: (len(x.shape), x.sharding)
        for path, x in jax.tree.leaves_with_path(params)
    }
    elsewhere = _replicated(sharding for _, sharding in of_params.values())

    def place(path: Any, leaf: Any) -> Any:
        _, found = _owned(path, of_params)
        rank, sharding = found or of_params.get((), (None, None))
        is_alike = rank == len(leaf.shape) and _divides(sharding, leaf)
        return _with_sharding(leaf, sharding if is_alike else elsewhere)

    return jax.tree.map_with_path(place, state)


def _replicated(shardings: Iterable[NamedSharding | None]) -> NamedSharding | None:
    """A sharding that divides nothing, over the mesh of the others, if there is one."""
    meshes = (one.mesh for one in shardings if one is not None)
    return next((NamedSharding(mesh, PartitionSpec()) for mesh in meshes), None)


def _divides(sharding: NamedSharding | None, leaf: Any) -> bool:
    """Whether all devices have equal parts of an array."""
    if sharding is None:
        return True
    if len(sharding.spec) > len(leaf.shape):
        return False
    try:
        sharding.shard_shape(leaf.shape)
    except ValueError:
        return False
    return True


def _with_sharding(leaf: Any, sharding: NamedSharding | None) -> Any:
    return jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, weak_type=leaf.weak_type, sharding=sharding
    )


def _by_field(state: Any, params: Any) -> dict[str, list[Any]]:
    """The arrays of each field of a state, by paths without those of parameters."""
    ends = {path: path for path, _ in jax.tree.leaves_with_path(params)}
    fields: dict[str, list[Any]] = {}
    for path, leaf in jax.tree.leaves_with_path(state):
        path, end = _owned(path, ends)
        field = path[: len(path) - len(end or ())]
        fields.setdefault(path_text(field), []).append(leaf)
    return fields


def _owned(path: Any, of_params: Mapping[Any, T]) -> tuple[Any, T | None]:
    """The path of an array of a state, and what belongs to its parameter.

    Codes and scales lie one level below the array that they stand for.
    """
    for own in (path, path[:-1]):
        if found := owner(own, of_params):
            return own, found
    return path, None


def _temporaries(
    tx: optax.GradientTransformationExtraArgs, state: Any, params: Any
) -> tuple[int | None, str | None]:
    """Temporaries of a step on each device, or why they are not known."""
    shardings = (x.sharding for x in jax.tree.leaves(params))
    if any(one and isinstance(one.mesh, AbstractMesh) for one in shardings):
        return None, "a mesh is abstract, and JAX compiles for real devices only"
    try:
        return temporary_bytes(tx.update, state, params), None
    except Exception as error:
        why = cause(error).removesuffix(".")
        return None, f"the step cannot be compiled: {why}"


def _show(path: Any) -> str:
    return repr(path_text(path)) if path else "the root"
