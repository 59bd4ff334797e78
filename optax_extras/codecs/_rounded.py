"""Floating-point numbers with fewer bits, rounded to the nearest or at random."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optax_extras._core import checks
from optax_extras._core.rounding import rounded, to_bfloat16
from optax_extras.codecs._blockwise import Scaled
from optax_extras.codecs._codec import Codec

_FLOAT8 = {"e4m3": jnp.float8_e4m3fn, "e5m2": jnp.float8_e5m2}
_EXPONENT = np.uint32(0x7F800000)
# Bits of a power of 2 and of its reciprocal have this sum.
_ONE_SQUARED = np.uint32(2 * 0x3F800000)


def bfloat16(stochastic: bool = True) -> Codec:
    """16 bits for each number: the upper half of a float32.

    Rounding is at random, up with a probability of how far up the number is, so that
    the mean of what is stored is right. To the nearest, an average that moves by less
    than half of a unit in the last place, 0.2 to 0.4 %, does not move: with ``b2`` =
    0.999, the second moment of Adam never falls, and is 1.4 times too high after 4 000
    steps.

    Args:
      stochastic: whether to round at random instead of to the nearest.

    Returns:
      A codec. Numbers keep the range of float32; finite ones stay finite, and NaN and
      infinities are kept.

    Raises:
      TypeError: ``stochastic`` is not a bool.

    Examples:
      >>> import jax.numpy as jnp, optax, optax_extras
      >>> from optax_extras.codecs import bfloat16
      >>> optimizer = optax_extras.compress_state(optax.adam(0.1), {"nu": bfloat16()})
      >>> optimizer.init(jnp.ones(3)).inner_state[0].nu.dtype
      dtype(bfloat16)

    References:
      Gupta et al. 2015, "Deep learning with limited numerical precision", arXiv
      1502.02551
    """
    return _BFloat16(checks.flag("stochastic", stochastic))


@dataclasses.dataclass(frozen=True)
class _BFloat16(Codec):
    """See `bfloat16`."""

    stochastic: bool

    def encode(self, x: jax.Array, statistics: Any, words: jax.Array) -> jax.Array:
        """The upper halves."""
        del statistics
        return to_bfloat16(x, words if self.stochastic else None)

    def decode(self, encoded: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """With zeros for the lower halves."""
        del shape
        bits = lax.bitcast_convert_type(encoded, jnp.uint16).astype(jnp.uint32)
        return lax.bitcast_convert_type(bits << np.uint32(16), jnp.float32)


def float8(
    format: str = "e5m2",  # noqa: A002  # the field's word
    block: int = 256,
    *,
    stochastic: bool = True,
) -> Codec:
    """8 bits for each number, a floating-point one, and a scale for each block.

    Prefer `blockwise`, whose numbers are closer together where those of an optimizer
    are. This is for comparisons, and for tools that read these formats.

    A number is a multiple of the largest magnitude of its block, which the largest
    number of the format stands for. The code of a number that is not 0 is not 0.

    Args:
      format: ``"e5m2"``, with a range of 4e9 and steps of 1/8 to 1/4 of a number, or
        ``"e4m3"``, with a range of 2e5 and steps of half of that.
      block: the largest number of elements with one scale, as in `blockwise`.
      stochastic: whether to round at random instead of to the nearest.

    Returns:
      A codec, whose codes are `Blocks` with the bits of the numbers, uint8.

    Raises:
      TypeError: an argument has the wrong type.
      ValueError: ``format`` is unknown, or ``block`` is not positive.

    Examples:
      >>> import jax.numpy as jnp, optax, optax_extras
      >>> from optax_extras.codecs import float8
      >>> optimizer = optax_extras.compress_state(optax.adam(0.1), {"mu": float8()})
      >>> codes = optimizer.init(jnp.ones(3)).inner_state[0].mu.codes
      >>> codes.view(jnp.float8_e5m2).dtype
      dtype(float8_e5m2)

    References:
      Micikevicius et al. 2022, "FP8 formats for deep learning", arXiv 2209.05433
    """
    return _Float8(
        checks.positive_integer("block", block),
        8,
        checks.choice("format", format, _FLOAT8),
        checks.flag("stochastic", stochastic),
    )


@dataclasses.dataclass(frozen=True)
class _Float8(Scaled):
    """See `float8`."""

    format: str
    stochastic: bool

    def to_codes(self, x: jax.Array, words: jax.Array) -> jax.Array:
        """The bits of numbers of the format, from numbers in [-1, 1]."""
        info = self._info
        scaled = jnp.abs(x) * np.float32(info.max)
        exponents = lax.bitcast_convert_type(scaled, jnp.uint32) & _EXPONENT
        power = lax.bitcast_convert_type(exponents, jnp.float32)
        power = jnp.maximum(power, np.float32(info.tiny))
        # XLA would write a quotient to memory that is used twice.
        inverse = _ONE_SQUARED - lax.bitcast_convert_type(power, jnp.uint32)
        inverse = lax.bitcast_convert_type(inverse, jnp.float32)
        steps = np.float32(1 / info.eps)
        multiple = rounded(scaled * inverse * steps, words if self.stochastic else None)
        magnitude = multiple * power * np.float32(info.eps)
        magnitude = jnp.minimum(magnitude, np.float32(info.max))
        smallest = np.float32(info.smallest_subnormal)
        magnitude = jnp.where(scaled > 0, jnp.maximum(magnitude, smallest), 0)
        numbers = jnp.where(x < 0, -magnitude, magnitude).astype(self._dtype)
        # Neither `numpy.savez` nor `optax.tree.norm` takes arrays of float8.
        return lax.bitcast_convert_type(numbers, jnp.uint8)

    def from_codes(self, codes: jax.Array) -> jax.Array:
        """Numbers in [-1, 1]."""
        most = np.float32(self._info.max)
        numbers = lax.bitcast_convert_type(codes, self._dtype)
        return numbers.astype(jnp.float32) / most

    @property
    def _dtype(self) -> Any:
        return _FLOAT8[self.format]

    @property
    def _info(self) -> Any:
        return jnp.finfo(self._dtype)  # type: ignore[no-untyped-call]
