"""Codecs of a few bits that differ in the numbers which the codes stand for.

For docs/codec_errors.py. Each has the blocks, scales and rounding of
`optax_extras.codecs.blockwise`, and a table of levels.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras._core.rounding import is_above
from optax_extras.codecs._blockwise import Scaled

# From bits and whether numbers may be negative to levels in increasing order.
Map = Callable[[int, bool], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tabulated(Scaled):
    """Codes that are places in a table of levels."""

    levels: tuple[float, ...]
    stochastic: bool

    def to_codes(self, x: jax.Array, words: jax.Array) -> jax.Array:
        """The place of one of the two levels around each number."""
        levels = jnp.asarray(self.levels, jnp.float32)
        low = jnp.searchsorted(levels, x, side="right", method="scan_unrolled") - 1
        low = jnp.clip(low, 0, len(levels) - 2)
        below, above = levels[low], levels[low + 1]
        part = (x - below) / (above - below)
        code = low + is_above(part, words if self.stochastic else None)
        if self.levels[0] == 0:  # as with `blockwise`, only 0 becomes 0
            code = jnp.where(x > 0, jnp.maximum(code, 1), code)
        return code.astype(jnp.uint8)

    def from_codes(self, codes: jax.Array) -> jax.Array:
        """The levels."""
        return jnp.asarray(self.levels, jnp.float32)[codes.astype(jnp.int32)]


def tabulated(
    levels: Map,
    bits: int,
    signed: bool,
    block: int = 256,
    stochastic: bool | None = None,
) -> Tabulated:
    """The codec of a map; by default, first moments in 4 bits go to the nearest."""
    if stochastic is None:
        stochastic = not (signed and bits == 4)
    numbers = tuple(map(float, levels(bits, signed)))
    return Tabulated(block, bits, numbers, stochastic)


def power(exponent: float, bits: int, signed: bool) -> np.ndarray:
    """Levels (c / n)^p of codes c up to n, of both signs where numbers are signed."""
    most = 2 ** (bits - signed) - 1
    return _of_signs(np.linspace(0, 1, most + 1) ** exponent, signed)


def without_zero(bits: int, signed: bool) -> np.ndarray:
    """Linear levels without 0: the 4-bit map of Li et al. for second moments."""
    if signed:
        raise ValueError("`signed` must be False: a first moment needs 0")
    return np.arange(1, 2**bits + 1) / 2**bits


def logarithmic(smallest: float, bits: int, signed: bool) -> np.ndarray:
    """0, and levels from the smallest to 1 with one ratio between neighbours."""
    most = 2 ** (bits - signed) - 1
    return _of_signs(np.r_[0, np.geomspace(smallest, 1, most)], signed)


def dynamic(bits: int, signed: bool) -> np.ndarray:
    """The dynamic map of bitsandbytes and torchao (Dettmers et al. 2022).

    There is a decade for each bit but one. From the largest to the smallest, each has
    half as many levels as the one before, in the middles of equal parts of what is
    between its tenth and its end. 0 and 1 are added; -1 is not.
    """
    decades = bits - 1
    magnitudes: list[float] = []
    for decade in range(decades):
        ends = np.linspace(0.1, 1, 2 ** (decade + (not signed)) + 1)
        magnitudes += list(10.0 ** (decade - decades + 1) * (ends[:-1] + ends[1:]) / 2)
    negative = -np.array(magnitudes if signed else [])
    return np.sort(np.r_[negative, 0, magnitudes, 1])


# What is compared. The smallest level of a logarithmic map must be chosen.
MAPS: Mapping[str, Map] = {
    "linear, c / n": partial(power, 1),
    "square, (c / n)²": partial(power, 2),
    "cube, (c / n)³": partial(power, 3),
    "fourth power, (c / n)⁴": partial(power, 4),
    "dynamic": dynamic,
    "logarithmic from 10⁻³": partial(logarithmic, 1e-3),
    "logarithmic from 10⁻⁵": partial(logarithmic, 1e-5),
}


def _of_signs(magnitudes: np.ndarray, signed: bool) -> np.ndarray:
    return np.r_[-magnitudes[:0:-1], magnitudes] if signed else magnitudes
