"""Codes of few bits, with a scale for each block of an array."""

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras._core import checks
from optax_extras._core.rounding import is_above
from optax_extras.codecs._codec import Codec
from optax_extras.codecs._grid import Grid, box

# Their reciprocals are subnormal, which XLA takes for 0.
_TOO_LARGE = np.float32(2**126)


class Blocks(NamedTuple):
    """Codes of an array in blocks."""

    codes: jax.Array  # in the array's shape; of 4 bits, two in a byte of the last axis
    scales: jax.Array  # of each block, the largest magnitude; float32, of that rank


def blockwise(
    bits: int = 8,
    block: int = 256,
    *,
    signed: bool = True,
    stochastic: bool | None = None,
) -> Codec:
    r"""8 or 4 bits for each number, and a float32 scale for each block of them.

    Use ``signed=True`` for first moments and ``signed=False`` for second moments.

    With the largest magnitude s of its block, a number is kept as a code c of n levels:

    .. math::

        x \approx s \, \mathrm{sign}(c) (|c| / n)^2 \ \text{(signed)}, \qquad
        x \approx s \, (c / n)^4 \ \text{(unsigned)}

    The numbers of a block differ by orders of magnitude, squares of gradients by twice
    as many. On moments of Adam in bundled tasks and in 8 bits, these two powers have
    smaller errors than linear codes, other powers, logarithmic codes and the dynamic
    map of bitsandbytes: see docs/memory.md. Neither needs a table. No map of 4 bits is
    good for second moments.

    The code of a number that is not 0 is never 0 where ``signed=False``: Adam
    would divide by it. Such a number is raised to the smallest of its block, which is
    2.4e-10 of the largest with 8 bits and 2e-5 with 4, and its step is smaller.

    A block is a part of the last axis, and where this is short, of earlier ones too. It
    depends on the shape alone, so that the codes are the same on any mesh. Shards that
    hold whole blocks need no communication: choose ``block`` so that it divides the
    length of a shard along the last axis. Where a block would cross a shard, the
    compiler exchanges parts of arrays, and scales, and codes of 4 bits, may be whole on
    each device.

    A NaN, an infinity and a magnitude from 2¹²⁶ = 8.5e37 on make their whole block NaN,
    and so does a negative number where ``signed=False``: they are seen, not lost.

    Args:
      bits: 8 or 4.
      block: the largest number of elements with one scale.
      signed: whether numbers may be negative.
      stochastic: whether to round at random, so that the mean of what is stored is the
        number, given the scale. To the nearest, the error has half of the variance, but
        a bias that adds up over steps. None rounds at random, but with ``signed`` and 4
        bits, a number below the smallest of 7 levels, 1/49 of the largest, to the
        nearest: a first moment that is raised from little to this level makes a step of
        Adam that may be a thousand times too long.

    Returns:
      A codec, whose codes are `Blocks`: ``bits`` and 32 / ``block`` bits for each
      number, if axes are long enough.

    Raises:
      TypeError: an argument has the wrong type.
      ValueError: ``bits`` is neither 8 nor 4, or ``block`` is not positive.

    Examples:
      >>> import jax.numpy as jnp, optax, optax_extras
      >>> from optax_extras.codecs import blockwise
      >>> optimizer = optax_extras.compress_state(
      ...     optax.adam(0.1), {"mu": blockwise(), "nu": blockwise(signed=False)}
      ... )
      >>> state = optimizer.init(jnp.ones((32, 1024)))
      >>> state.inner_state[0].nu.codes.dtype, state.inner_state[0].nu.scales.shape
      (dtype('uint8'), (32, 4))

    References:
      Dettmers et al. 2022, "8-bit optimizers via block-wise quantization", arXiv
      2110.02861

      Li et al. 2023, "Memory efficient optimizers with 4-bit states", arXiv 2309.01507
    """
    if checks.positive_integer("bits", bits) not in (8, 4):
        raise ValueError(f"`bits` must be 8 or 4, got {bits}")
    by_default = stochastic is None
    return _Powers(
        checks.positive_integer("block", block),
        bits,
        checks.flag("signed", signed),
        by_default or checks.flag("stochastic", stochastic),
        small_to_nearest=by_default and signed and bits == 4,
    )


@dataclasses.dataclass(frozen=True)
class Scaled(Codec):
    """Codes of numbers in [-1, 1], and scales for the blocks."""

    block: int
    bits: int  # of a code: 8 or 4

    @abc.abstractmethod
    def to_codes(self, x: jax.Array, words: jax.Array) -> jax.Array:
        """Codes of numbers in [-1, 1], in their shape."""

    @abc.abstractmethod
    def from_codes(self, codes: jax.Array) -> jax.Array:
        """What codes stand for, in their shape."""

    def statistics(self, x: jax.Array) -> jax.Array:
        """The largest magnitudes of blocks, NaN where they are too large."""
        largest = self.grid(x.shape).largest(jnp.abs(x))
        return jnp.where(largest < _TOO_LARGE, largest, jnp.nan)

    def encode(self, x: jax.Array, statistics: jax.Array, words: jax.Array) -> Blocks:
        """Codes and scales."""
        grid = self.grid(x.shape)
        # The reciprocal of a subnormal number is infinite.
        least = np.finfo(np.float32).tiny
        inverse = jnp.where(statistics > 0, 1 / jnp.maximum(statistics, least), 0)
        codes = self.to_codes(x * grid.spread(inverse, x), words)
        return Blocks(grid.packed(codes) if self.bits == 4 else codes, statistics)

    def decode(self, encoded: Blocks, shape: tuple[int, ...]) -> jax.Array:
        """Codes times scales."""
        grid, codes = self.grid(shape), encoded.codes
        x = self.from_codes(grid.parted(codes) if self.bits == 4 else codes)
        return x * grid.spread(encoded.scales, x)

    def grid(self, shape: tuple[int, ...]) -> Grid:
        """The blocks of a leaf."""
        return Grid(shape, box(shape, self.block))


@dataclasses.dataclass(frozen=True)
class _Powers(Scaled):
    """See `blockwise`."""

    signed: bool
    stochastic: bool
    small_to_nearest: bool  # whether all numbers below the smallest level are

    @property
    def _levels(self) -> int:
        return (1 << self.bits - self.signed) - 1

    def statistics(self, x: jax.Array) -> jax.Array:
        """The largest magnitudes of blocks, NaN where a number has the wrong sign."""
        if self.signed:
            return super().statistics(x)
        # As unsigned integers, the bits of negative numbers are above all others.
        largest = self.grid(x.shape).largest(jnp.where(x == 0, 0, x))
        return jnp.where((largest >= 0) & (largest < _TOO_LARGE), largest, jnp.nan)

    def to_codes(self, x: jax.Array, words: jax.Array) -> jax.Array:
        """Roots, rounded."""
        most = np.float32(self._levels)
        magnitude = jnp.abs(x)
        root = jnp.sqrt(magnitude)
        low = jnp.floor((root if self.signed else jnp.sqrt(root)) * most)
        below = self._power(low)
        gap = self._power(low + 1) - below
        part = (magnitude * self._power(most) - below) / gap
        is_small = jnp.maximum(1 - low, 0) if self.small_to_nearest else None
        above = is_above(part, words if self.stochastic else None, is_small)
        code = jnp.minimum(low + above, most)
        if self.signed:
            whole = jnp.where(x < 0, -code, code).astype(jnp.int32)
            if self.bits == 8:
                return whole.astype(jnp.int8)
            return (whole & 15).astype(jnp.uint8)
        # Not by the code: magnitudes may be so small that XLA takes them for 0.
        code = jnp.where(x == 0, 0, jnp.maximum(code, 1))
        return code.astype(jnp.int32).astype(jnp.uint8)

    def from_codes(self, codes: jax.Array) -> jax.Array:
        """Powers."""
        whole = codes.astype(jnp.int32)
        if self.signed and self.bits == 4:  # the sign is in the fourth bit
            whole = (whole ^ 8) - 8
        part = whole.astype(jnp.float32) * np.float32(1 / self._levels)
        return part * jnp.abs(part) if self.signed else self._power(part)

    def _power(self, x: Any) -> Any:
        square = x * x
        return square if self.signed else square * square
