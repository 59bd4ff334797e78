"""Bytes that a step sends: counted in a traced step, and read off a compiled one."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from optax_extras._core import checks
from optax_extras._core.axes import names_of
from optax_extras.communication._workers import worker_specs
from optax_extras.typing import AxisName


class WireBytes(NamedTuple):
    """Bytes that one worker sends and receives in a step, on a ring of workers.

    Attributes:
      sent: bytes that it hands to others.
      received: bytes that it gets from others.
      dense: bytes that it sends, and receives, in a dense mean in float32.
      ratio: ``dense`` over the larger one of ``sent`` and ``received``.
      note: a word where the messages move more than a dense mean, or "".
    """

    sent: int
    received: int
    dense: int
    ratio: float
    note: str


class Collective(NamedTuple):
    """A collective of a compiled program.

    Attributes:
      kind: such as ``"all-gather"``.
      dtype: of its first operand, such as ``"u8"``.
      operand_bytes: size of the operands on a device.
      result_bytes: size of the results on a device.
      group_size: number of devices that take part together; 0 for all.
    """

    kind: str
    dtype: str
    operand_bytes: int
    result_bytes: int
    group_size: int


def wire_bytes(
    tx: optax.GradientTransformation,
    params: Any,
    *,
    axis_name: AxisName,
    workers: int,
    other_axes: Mapping[str, int] | None = None,
    step: int | None = None,
) -> WireBytes:
    """Counts the bytes that a step moves along the axis of the workers.

    The step is traced, not run.

    Args:
      tx: a transformation that communicates, such as `compressed_mean` in a chain.
      params: the parameters, or arrays without values (`jax.ShapeDtypeStruct`); those
        of one shard, if they are sharded over another axis.
      axis_name: the axis of the workers, or a tuple of axes of which the first one has
        all of them.
      workers: number of workers.
      other_axes: sizes of other axes that the transformation names, such as its
        ``fast_axis_name``; what moves along them is not counted.
      step: number of the step, from 0 on. Without it, the branch that moves most counts
        where branches move different numbers of bytes, such as those of a warm-up.

    Returns:
      Bytes sent and received by one worker.

    Raises:
      ValueError: ``workers`` is below 1, or not what the transformation expects.
      TypeError: ``workers`` is not an int.

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
    if step is not None:
        step = checks.nonnegative_integer("step", step)
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

    def update(updates: Any, state: Any, params: Any) -> Any:
        if step is not None:
            state = _at_step(state, step)
        return tx.update(updates, state, params)

    traced = jax.shard_map(
        update,
        mesh=mesh,
        in_specs=(none, specs, none),
        out_specs=(none, specs),
        check_vma=False,
    )
    program = jax.make_jaxpr(traced)(abstract, state, abstract)
    sent, received = _moved(program.jaxpr, set(names), workers)
    size = sum(
        math.prod(x.shape) * (1 + jnp.iscomplexobj(x))
        for x in jax.tree.leaves(abstract)
    )
    dense = 2 * 4 * size * (workers - 1) // workers
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


def _at_step(state: Any, step: int) -> Any:
    """The state with this number, which is no tracer, as every count of steps."""

    def leaf(path: Any, x: Any) -> Any:
        name = path[-1] if path else None
        return np.int32(step) if getattr(name, "name", None) == "count" else x

    return jax.tree.map_with_path(leaf, state)


def _moved(jaxpr: Any, names: set[Any], workers: int) -> tuple[int, int]:
    """Bytes that one worker sends and receives in a traced program."""
    sent = received = 0
    for equation in jaxpr.eqns:
        operand = sum(map(_size, equation.invars))
        result = sum(map(_size, equation.outvars))
        kind = equation.primitive.name
        if names & set(names_of(_axes_of(equation.params))):
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
            sent, received = sent + moved[0], received + moved[1]
        inner = [_moved(part, names, workers) for part in _parts(equation.params)]
        if inner and kind == "cond":
            inner = [max(inner, key=max)]
        times = equation.params.get("length", 1) if kind == "scan" else 1
        sent += times * sum(part[0] for part in inner)
        received += times * sum(part[1] for part in inner)
    return sent, received


def _axes_of(parameters: Mapping[str, Any]) -> Any:
    """The axes of a collective; `axes` or `axis_name` in its parameters."""
    return parameters.get("axes", parameters.get("axis_name"))


def _size(variable: Any) -> int:
    shape, dtype = variable.aval.shape, variable.aval.dtype
    return int(math.prod(shape) * dtype.itemsize)


def _parts(parameters: Mapping[str, Any]) -> Iterator[Any]:
    """The programs inside of an equation."""
    for value in parameters.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part


_KINDS = (
    "all-gather",
    "all-to-all",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
)
_ITEM = {"pred": 8, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8}


def collective_bytes(compiled: Any) -> list[Collective]:
    """The collectives of a compiled program, as XLA will run them.

    What a program of JAX asks for is not what moves: XLA may widen half-precision
    payloads, or merge collectives. Collectives inside a loop are listed once.

    Args:
      compiled: of `jax.jit(...).lower(...).compile()`, or its text.

    Returns:
      One entry for each collective, in the order of the program's text.

    Raises:
      AttributeError: ``compiled`` is no compiled program.

    Examples:
      >>> import jax, jax.numpy as jnp, optax_extras
      >>> from jax.sharding import PartitionSpec as P
      >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
      >>> mean = jax.shard_map(
      ...     lambda x: jax.lax.pmean(x, "data"),
      ...     mesh=mesh,
      ...     in_specs=P(),
      ...     out_specs=P(),
      ...     check_vma=False,
      ... )
      >>> program = jax.jit(mean).lower(jnp.zeros(100)).compile()
      >>> [(one.kind, one.dtype, one.result_bytes)
      ...  for one in optax_extras.collective_bytes(program)]
      [('all-reduce', 'f32', 400)]
    """
    text = compiled if isinstance(compiled, str) else compiled.as_text()
    pattern = rf"= (.*?) ({'|'.join(_KINDS)})(?:-start)?\((.*?)\), (.*)"
    shapes: dict[str, str] = dict(
        re.findall(r"^\s*(?:ROOT )?%?([\w.-]+) = (\S+?)[ {]", text, re.MULTILINE)
    )
    found = []
    for result, kind, operands, rest in re.findall(pattern, text):
        arrays: list[str] = [
            shapes.get(name.split("%")[-1].strip(), name)
            for name in re.split(r", (?:/\*index=\d+\*/)?%", operands)
        ]
        first = re.search(r"(\w+)\[", " ".join(arrays))
        found.append(
            Collective(
                kind,
                first[1] if first else "",
                _bytes(" ".join(arrays)),
                _bytes(result),
                _group_size(rest),
            )
        )
    return found


def _bytes(text: str) -> int:
    """The size of the arrays that are named in a piece of HLO, such as ``u8[4,7]``."""
    total = 0
    for dtype, shape in re.findall(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]", text):
        bits = _ITEM.get(dtype) or int(re.sub(r"\D", "", dtype) or 8)
        total += math.prod(int(n) for n in shape.split(",") if n) * bits // 8
    return total


def _group_size(text: str) -> int:
    """The size of the groups, which XLA writes in three ways."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return len(listed[1].split(","))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(iota[1])
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", mesh[2]))
    return 0
