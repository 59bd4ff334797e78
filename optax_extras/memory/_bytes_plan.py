"""Tables of where the bytes of an optimizer go."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_extras._core.wording import aligned, memory_size
from optax_extras.codecs import bfloat16, blockwise

# Of the attributes of a field.
_HEADINGS = (
    "field",
    "arrays",
    "dtypes",
    "bytes",
    "B per param",
    "per device",
    "as bfloat16",
    "as 8 bits",
)


class FieldBytes(NamedTuple):
    """Bytes of one field of a state, such as all first moments, or of a whole tree.

    Attributes:
      field: the path of its arrays in the state without that of the parameter that they
        belong to, such as ``0/mu``.
      arrays: number of arrays.
      dtypes: names of their dtypes, each once.
      bytes: size of the whole arrays, however many devices have a copy.
      bytes_per_parameter: the same, divided by the number of elements of all
        parameters.
      bytes_per_device: size on each device.
      bfloat16_bytes: size with `codecs.bfloat16`; None for what is no state. Scalars,
        integers, codes and what is no wider stay as they are, here and below.
      int8_bytes: size with `codecs.blockwise`; None for what is no state.
    """

    field: str
    arrays: int
    dtypes: tuple[str, ...]
    bytes: int
    bytes_per_parameter: float
    bytes_per_device: int
    bfloat16_bytes: int | None
    int8_bytes: int | None

    def texts(self) -> list[str]:
        """What a table shows of each attribute."""
        return [
            self.field or "(root)",
            str(self.arrays),
            ", ".join(self.dtypes) or "-",
            memory_size(self.bytes),
            _per_parameter(self.bytes_per_parameter),
            memory_size(self.bytes_per_device),
            *(
                "-" if size is None else memory_size(size)
                for size in (self.bfloat16_bytes, self.int8_bytes)
            ),
        ]


@dataclasses.dataclass(frozen=True)
class BytesPlan:
    """Bytes that an optimizer needs, as `plan_bytes` finds them.

    Printed, it is a table.

    Attributes:
      parameter_count: number of elements of all parameters.
      parameters: bytes of the parameters.
      gradients: bytes of gradients with the shapes, dtypes and shardings of the
        parameters.
      state: bytes of the whole state.
      fields: bytes of each field of the state, in its order.
      temporary_bytes: what a compiled step takes beside all these on each device; None
        if it cannot be compiled.
      no_temporaries: why not; None if it can.
      state_shardings: the shardings of the state that sizes on a device are those with,
        for ``out_shardings`` of `jax.jit`; None if no parameter has one.
    """

    parameter_count: int
    parameters: FieldBytes
    gradients: FieldBytes
    state: FieldBytes
    fields: tuple[FieldBytes, ...]
    temporary_bytes: int | None
    no_temporaries: str | None
    state_shardings: Any

    @property
    def parameter_bytes(self) -> int:
        """Size of the parameters, however many devices have a copy."""
        return self.parameters.bytes

    @property
    def gradient_bytes(self) -> int:
        """Size of the gradients, however many devices have a copy."""
        return self.gradients.bytes

    @property
    def state_bytes(self) -> int:
        """Size of the state, however many devices have a copy."""
        return self.state.bytes

    @property
    def bytes_per_parameter(self) -> float:
        """Size of the state, divided by the number of elements of all parameters."""
        return self.state.bytes_per_parameter

    @property
    def bytes_per_device(self) -> int:
        """Parameters, gradients, state and, where known, temporaries on a device."""
        kept = (self.parameters, self.gradients, self.state)
        return sum(x.bytes_per_device for x in kept) + (self.temporary_bytes or 0)

    def texts(self) -> list[list[str]]:
        """Rows of the table, the heading first."""
        temporaries, total = (
            [name, "-", "-", "-", "-", size, "-", "-"]
            for name, size in (
                (
                    "temporaries",
                    "unknown"
                    if self.temporary_bytes is None
                    else memory_size(self.temporary_bytes),
                ),
                ("total", memory_size(self.bytes_per_device)),
            )
        )
        return [
            list(_HEADINGS),
            self.parameters.texts(),
            self.gradients.texts(),
            *(row.texts() for row in self.fields),
            self.state.texts(),
            temporaries,
            total,
        ]

    def __str__(self) -> str:
        """A line for each field, and for each sum, in columns."""
        lines = [aligned(self.texts())]
        if self.no_temporaries is not None:
            lines.append(f"The total is without temporaries: {self.no_temporaries}.")
        return "\n".join(lines)


def measured(
    field: str, leaves: Sequence[Any], parameter_count: int, is_state: bool = False
) -> FieldBytes:
    """Bytes of arrays, given as `jax.ShapeDtypeStruct`, perhaps with shardings."""
    total = sum(_size(x.shape, x.dtype) for x in leaves)
    half, eighth = _sizes_in_codecs(leaves) if is_state else (None, None)
    return FieldBytes(
        field=field,
        arrays=len(leaves),
        dtypes=tuple(dict.fromkeys(str(x.dtype) for x in leaves)),
        bytes=total,
        bytes_per_parameter=total / max(parameter_count, 1),
        bytes_per_device=sum(_size(_shape_on_device(x), x.dtype) for x in leaves),
        bfloat16_bytes=half,
        int8_bytes=eighth,
    )


def _sizes_in_codecs(leaves: Sequence[Any]) -> tuple[int, int]:
    """The bytes of arrays in bfloat16, and in blocks of 8 bits.

    Scalars and integers stay as they are, and so do the arrays of codes.
    """
    own = [_size(x.shape, x.dtype) for x in leaves]
    if any(x.dtype in (jnp.int8, jnp.uint8) for x in leaves):
        return sum(own), sum(own)
    sizes = [
        _coded_sizes(x.shape, jnp.issubdtype(x.dtype, jnp.complexfloating))
        if x.shape and jnp.issubdtype(x.dtype, jnp.inexact)
        else (size, size)
        for x, size in zip(leaves, own, strict=True)
    ]
    half, eighth = (
        (sum(map(min, own, column)) for column in zip(*sizes, strict=True))
        if sizes
        else (0, 0)
    )
    return half, eighth


@functools.lru_cache(maxsize=1024)
def _coded_sizes(shape: tuple[int, ...], is_complex: bool) -> tuple[int, int]:
    """The bytes of an array of this shape in bfloat16, and in blocks of 8 bits."""
    shape = (2, *shape) if is_complex else shape

    def encode(x: jax.Array, words: jax.Array) -> Any:
        return [
            codec.encode(x, codec.statistics(x), words)
            for codec in (bfloat16(), blockwise())
        ]

    x, words = (jax.ShapeDtypeStruct(shape, d) for d in (jnp.float32, jnp.uint32))
    half, eighth = (
        sum(_size(x.shape, x.dtype) for x in jax.tree.leaves(code))
        for code in jax.eval_shape(encode, x, words)
    )
    return half, eighth


def _per_parameter(count: float) -> str:
    return "<0.001" if 0 < count < 0.0005 else f"{count:.3g}"


def _size(shape: Sequence[int], dtype: Any) -> int:
    size: int = math.prod(shape) * dtype.itemsize
    return size


def _shape_on_device(leaf: Any) -> tuple[int, ...]:
    if leaf.sharding is None:
        return tuple(leaf.shape)
    return tuple(leaf.sharding.shard_shape(leaf.shape))
