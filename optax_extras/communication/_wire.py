"""Bytes that steps send, counted in a traced step."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from optax_extras._core import checks
from optax_extras._core.axes import names_of
from optax_extras.communication._traced import Known, Program, program_of, steps_of
from optax_extras.communication._workers import worker_specs
from optax_extras.typing import AxisName


class WireBytes(NamedTuple):
    """Bytes that one worker sends and receives in some steps, on a ring of workers.

    Attributes:
      sent: bytes that it hands to others.
      received: bytes that it gets from others.
      dense: bytes that it sends, and receives, in as many dense means in float32.
      ratio: ``dense`` over the larger one of ``sent`` and ``received``.
      note: a word where the messages move more than a dense mean, or "".
    """

    sent: int
    received: int
    dense: int
    ratio: float
    note: str


def wire_bytes(
    tx: optax.GradientTransformation,
    params: Any,
    *,
    axis_name: AxisName,
    workers: int,
    other_axes: Mapping[str, int] | None = None,
    step: int | Sequence[int] | None = None,
) -> WireBytes:
    """Counts the bytes that a step moves along the axis of the workers.

    The step is traced, not run. Where its branches move different numbers of bytes,
    such as those of a warm-up or of a method that sends every few steps, the number of
    the step decides on the branch. Where values do that are not known before it runs,
    the branch that moves most counts.

    Args:
      tx: a transformation that communicates, such as `compressed_mean` in a chain.
      params: the parameters, or arrays without values (`jax.ShapeDtypeStruct`); those
        of one shard, if they are sharded over another axis.
      axis_name: the axis of the workers, or a tuple of axes of which the first one has
        all of them.
      workers: number of workers.
      other_axes: sizes of other axes that the transformation names, such as its
        ``fast_axis_name``; what moves along them is not counted.
      step: number of the step, from 0 on; or numbers of several steps, such as
        ``range(30)``, whose bytes are added up. Without it, the branch that moves most
        counts wherever the number of the step would decide.

    Returns:
      Bytes sent and received by one worker.

    Raises:
      ValueError: ``workers`` is below 1, or not what the transformation expects; a
        number of a step is below 0, or ``step`` is empty.
      TypeError: ``workers`` or a number of a step is not an int.

    Examples:
      >>> import jax.numpy as jnp, optax_extras
      >>> from optax_extras.compressors import top_k
      >>> tx = optax_extras.compressed_mean(top_k(0.001), "data", workers=8)
      >>> found = optax_extras.wire_bytes(
      ...     tx, jnp.zeros(1_000_000), axis_name="data", workers=8
      ... )
      >>> found.sent, found.received, round(found.ratio)
      (6001, 42007, 167)
    """
    workers = checks.positive_integer("workers", workers)
    steps = None
    if step is not None:
        numbers = step if isinstance(step, Sequence) else (step,)
        steps = [checks.nonnegative_integer("step", number) for number in numbers]
        if not steps:
            raise ValueError(f"`step` must have at least one number, got {step!r}")
    moved = moved_bytes(
        tx,
        params,
        axis_name=axis_name,
        workers=workers,
        other_axes=other_axes,
        steps=steps,
    )
    sent, received = moved.sum(axis=1).tolist()
    size = sum(
        math.prod(np.shape(x)) * (1 + jnp.iscomplexobj(x))
        for x in jax.tree.leaves(params)
    )
    dense = moved.shape[1] * (2 * 4 * size * (workers - 1) // workers)
    most = max(sent, received)
    note = ""
    if most > dense:
        note = "it moves more than a dense mean"
    if received > max(sent, dense):
        note = (
            f"it receives more than in a dense mean: a gather grows with the"
            f" {workers} workers"
        )
    return WireBytes(sent, received, dense, dense / most if most else math.inf, note)


def moved_bytes(
    tx: optax.GradientTransformation,
    params: Any,
    *,
    axis_name: AxisName,
    workers: int,
    other_axes: Mapping[str, int] | None = None,
    steps: Sequence[int] | None = None,
) -> np.ndarray[Any, Any]:
    """Bytes that one worker sends and receives in each of T steps, int64[2, T].

    Args:
      tx: the transformation, of which one step is traced.
      params: the parameters, or arrays without values.
      axis_name: the axis of the workers.
      workers: their number, which the caller has checked.
      other_axes: sizes of other axes.
      steps: numbers of the steps, also checked; None for a step of unknown number.
    """
    names = names_of(axis_name)
    sizes = {names[0]: workers, **dict.fromkeys(names[1:], 1), **(other_axes or {})}
    mesh = AbstractMesh(
        tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes)
    )
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)), params
    )
    state = jax.eval_shape(tx.init, abstract)
    none: Any = PartitionSpec()
    specs = worker_specs(state, axis_name)
    update = jax.shard_map(
        lambda state, updates, params: tx.update(updates, state, params),
        mesh=mesh,
        in_specs=(specs, none, none),
        out_specs=(none, specs),
        check_vma=False,
    )
    with jax.sharding.use_abstract_mesh(mesh):  # not that of the caller
        traced = jax.make_jaxpr(update)(state, abstract, abstract)
    known = [
        None
        if steps is None or not _counts(path, leaf)
        else steps_of(steps, leaf.dtype)
        for path, leaf in jax.tree.leaves_with_path(state)
    ]
    moved = _moved(program_of(traced, known), set(names), workers)
    return np.broadcast_to(moved, (2, 1 if steps is None else len(steps)))


def _counts(path: Any, leaf: Any) -> bool:
    """Whether a leaf of a state is a number of steps."""
    name = getattr(path[-1], "name", None) if path else None
    return name == "count" and leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, np.integer)


def _moved(program: Program, names: set[Any], workers: int) -> Any:
    """Bytes that one worker sends and receives in a program, (2, T) or (2, 1)."""
    total = np.zeros((2, 1), np.int64)
    for equation, branch, parts in program.equations:
        kind = equation.primitive.name
        if names & set(names_of(_axes_of(equation.params))):
            operand = sum(map(_size, equation.invars))
            result = sum(map(_size, equation.outvars))
            others = (workers - 1) / workers
            if kind.startswith("all_gather"):
                moved = operand, result - operand
            elif kind.startswith(
                ("psum", "pmax", "pmin")
            ):  # a ring scatters sums, and gathers them
                moved = int(2 * operand * others), int(2 * operand * others)
            elif kind in ("all_to_all", "reduce_scatter"):
                moved = int(operand * others), int(operand * others)
            elif kind == "ppermute":
                moved = operand, operand
            else:
                moved = 0, 0
            total = total + np.reshape(moved, (2, 1))
        inner = [_moved(part, names, workers) for part in parts]
        if kind == "cond":
            inner = [_of_branch(inner, branch)]
        times = equation.params.get("length", 1) if kind == "scan" else 1
        total = total + times * sum(inner)
    return total


def _of_branch(branches: Sequence[Any], branch: Known | None) -> Any:
    """What the branch moves that runs, or else the one that moves most."""
    moved = np.stack(np.broadcast_arrays(*branches))
    number = moved.max(axis=1).argmax(axis=0) if branch is None else branch.value()[0]
    chosen = np.asarray(number).reshape(1, 1, -1)
    return np.take_along_axis(moved, chosen, axis=0)[0]


def _axes_of(parameters: Mapping[str, Any]) -> Any:
    """The axes of a collective; `axes` or `axis_name` in its parameters."""
    return parameters.get("axes", parameters.get("axis_name"))


def _size(variable: Any) -> int:
    shape, dtype = variable.aval.shape, variable.aval.dtype
    return int(math.prod(shape) * dtype.itemsize)
