"""Collectives of a compiled program, read off its text."""

import math
import re
from typing import Any, NamedTuple

_KINDS = (
    "all-gather",
    "all-to-all",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
)
_ITEM = {"pred": 8, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8}


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
