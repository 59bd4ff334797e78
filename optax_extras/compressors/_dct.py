"""The largest coefficients of the cosine transforms of blocks (DeMo)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optax_extras.compressors._compressor import Compressor, Stack
from optax_extras.compressors._matrices import matrix_of
from optax_extras.compressors._sparse import Largest
from optax_extras.compressors._values import BFLOAT16, Values

# TPUs and GPUs would round the factors of a product to fewer bits.
_PRECISION = lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class DctTopK(Largest):
    """See `dct_top_k`.

    A leaf is a matrix of a × b blocks of h × w elements; that of a vector has one row.
    """

    k: int
    chunk: int
    values: Values = BFLOAT16

    def _blocks(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """(a, h, b, w); an axis that is shorter than a chunk is one block."""
        rows, columns = matrix_of(shape)
        h, w = min(self.chunk, rows), min(self.chunk, columns)
        return -(-rows // h), h, -(-columns // w), w

    def cut(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Blocks of the leaf, their elements, and the coefficients sent of each."""
        a, h, b, w = self._blocks(shape)
        return a * b, h * w, min(self.k, h * w)

    def places(self, shape: tuple[int, ...]) -> int:
        """How many coefficients a leaf has; its elements, where all is sent."""
        return math.prod(shape if self.is_whole(shape) else self._blocks(shape))

    def rows(self, x: jax.Array) -> jax.Array:
        """The coefficients of the blocks, of which the last ones have zeros beyond."""
        a, h, b, w = self._blocks(x.shape)
        matrix = x.reshape(matrix_of(x.shape))
        missing = [
            (0, n - m) for n, m in zip((a * h, b * w), matrix.shape, strict=True)
        ]
        blocks = jnp.pad(matrix, missing).reshape(a, h, b, w)
        return _transformed("ahbw,ih,jw->abij", blocks, h, w).reshape(a * b, h * w)

    def leaf(self, numbers: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The leaf with these coefficients."""
        if self.is_whole(shape):
            return super().leaf(numbers, shape)
        a, h, b, w = self._blocks(shape)
        blocks = _transformed("abij,ih,jw->ahbw", numbers.reshape(a, b, h, w), h, w)
        rows, columns = matrix_of(shape)
        return blocks.reshape(a * h, b * w)[:rows, :columns].reshape(shape)

    def left(self, messages: jax.Array, stack: Stack) -> jax.Array:
        """What messages leave of leaves, of which entries are no elements."""
        return Compressor.left(self, messages, stack)

    def limit(self, workers: int) -> float:
        """The largest magnitude of elements whose exchange cannot overflow."""
        # A transform of h × w elements multiplies them by at most the root of h w, and
        # there are two, with a sum over the workers between them.
        return super().limit(workers) / self.chunk**2


def _transformed(formula: str, blocks: jax.Array, h: int, w: int) -> jax.Array:
    """The cosine transforms of blocks of h × w, or their inverses."""
    factors = (jnp.asarray(_cosines(n)) for n in (h, w))
    return jnp.einsum(formula, blocks, *factors, precision=_PRECISION)


def _cosines(n: int) -> Any:
    """The matrix of the orthonormal DCT-II of n numbers, float32[n, n]."""
    places, waves = np.arange(n) + 0.5, np.arange(n)[:, np.newaxis]
    matrix = np.cos(np.pi / n * waves * places) * np.sqrt(2 / n)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)
