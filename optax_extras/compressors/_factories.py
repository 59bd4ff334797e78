"""The bundled compressors, with checks of their arguments."""

from collections.abc import Mapping
from typing import Literal

from optax_extras._core import checks, gaussian
from optax_extras.compressors._compressor import Compressor
from optax_extras.compressors._dct import DctTopK
from optax_extras.compressors._low_rank import LowRank
from optax_extras.compressors._quantized import Linear, Quantized, Sign, TwoLevels
from optax_extras.compressors._sparse import RandomK, TopK
from optax_extras.compressors._staged import Staged
from optax_extras.compressors._values import BFLOAT16, SignAndLevel, Values
from optax_extras.typing import KeyLike

BITS = (1, 2, 4, 8)
VALUES: Mapping[int, Values] = {16: BFLOAT16, 2: SignAndLevel()}


def top_k(
    density: float | Mapping[int, float], *, chunk: int | None = None, bits: int = 16
) -> Compressor:
    r"""Sends the elements of the largest magnitude of each leaf.

    Of a leaf of n elements, ⌈d n⌉ are sent with d = ``density``, as values of so many
    ``bits`` and packed indices; of each ``chunk`` of the flattened leaf, if that is
    given. What the values are rounded by stays in the residual. Where all elements are
    sent, they are sent in float32, and without indices.

    An index takes 12 bits in a chunk of up to 4096 elements, 16 in one of up to 65 536,
    and 32 beyond: with a bfloat16 value, an entry takes 3.5, 4 or 6 bytes. Every worker
    receives the entries of all others. The time of a step is mostly that of the
    selection; chunks of 4096 take less than whole leaves.

    A value of 2 bits is a sign, and one of two magnitudes that a chunk sends along in 4
    bytes: the means of its large and of its small entries. With the largest 64 of 4096
    normal numbers, the squared error is 0.4 % of their squares, and an entry takes 1.8
    bytes.

    Args:
      density: d in (0, 1]; or densities by the steps from which on they hold, such as
        ``{0: 0.25, 100: 0.01}``, of which one must be for step 0. Each of them is
        compiled.
      chunk: length of the chunks, at least 1; None for whole leaves.
      bits: of a value: 16, or 2 with a ``chunk``.

    Raises:
      ValueError: an argument is out of its range, or 2 ``bits`` come without a
        ``chunk``.
      TypeError: an argument has the wrong type.

    References:
      Lin et al. 2017, "Deep Gradient Compression: Reducing the Communication Bandwidth
      for Distributed Training", arXiv 1712.01887

      Sarfi et al. 2025, "Communication Efficient LLM Pre-training with SparseLoCo",
      arXiv 2508.15706
    """
    if chunk is not None:
        chunk = checks.positive_integer("chunk", chunk)
    if isinstance(bits, bool) or bits not in tuple(VALUES):
        raise ValueError(f"`bits` must be one of {tuple(VALUES)}, got {bits!r}")
    if bits == 2 and chunk is None:
        raise ValueError(
            "`chunk` must be given with 2 `bits`, such as chunk=4096: two magnitudes"
            " stand for all values of a chunk"
        )
    values = VALUES[bits]
    if not isinstance(density, Mapping):
        return TopK(_density(density), chunk, values)
    starts = sorted(density)
    if not starts or starts[0] != 0 or not all(type(step) is int for step in starts):
        raise ValueError(
            f"`density` must map steps to densities from step 0 on, got {density}"
        )
    stages = tuple(TopK(_density(density[step]), chunk, values) for step in starts)
    return Staged(tuple(starts), stages)


def dct_top_k(k: int = 32, *, chunk: int = 64) -> Compressor:
    """Sends the largest coefficients of the cosine transform of each block.

    A leaf is cut into blocks of ``chunk`` × ``chunk`` elements along its last axis and
    all others together; a vector, into blocks of ``chunk``. Blocks that end beyond the
    leaf have zeros there. Of the orthonormal DCT-II of each block, k coefficients are
    sent, as bfloat16 values and packed indices of 12 bits (16 in blocks of more than
    4096 elements): with the defaults, 0.027 bytes for each element of whole blocks.
    Where k is not less than the elements of a block, the leaf is sent as it is.

    Means are taken of coefficients: with ``average="senders"``, of each over the
    workers that sent it. A step with elements above 3.4e38 / (2 · chunk² · workers),
    whose transforms could overflow, counts as one that is not finite.

    Args:
      k: coefficients of a block, at least 1.
      chunk: length of the blocks, at least 1.

    Raises:
      ValueError: an argument is out of its range.
      TypeError: an argument has the wrong type.

    References:
      Peng et al. 2024, "DeMo: Decoupled Momentum Optimization", arXiv 2411.19870
    """
    return DctTopK(
        checks.positive_integer("k", k), checks.positive_integer("chunk", chunk)
    )


def random_k(density: float, *, key: KeyLike) -> Compressor:
    """Sends random elements of each leaf, the same ones on all workers.

    A leaf of n elements is cut into k = ⌈d n⌉ intervals, d = ``density``, and one
    element of each is sent as a bfloat16 value, 2 bytes; the indices follow from the
    key, the step and the leaf's path. Values are not multiplied by n/k, so that error
    feedback converges.

    Args:
      density: d in (0, 1].
      key: an int, a key from `jax.random.key`, or the uint32 words of one.

    Raises:
      ValueError: ``density`` is out of its range.
      TypeError: an argument has the wrong type.

    References:
      Stich et al. 2018, "Sparsified SGD with Memory", arXiv 1809.07599
    """
    return RandomK(_density(density), gaussian.key_words(key))


def quantized(
    bits: int, *, block: int = 512, stochastic: bool = False, key: KeyLike | None = None
) -> Compressor:
    """Sends numbers of 8, 4, 2 or 1 bits, with scales for each block of a leaf.

    The mean is taken in two phases: each worker gets its part of the blocks of all
    workers, takes their mean, and sends that in as many bits to all others. Bytes do
    not depend on the number of workers: about ``bits / 4`` for each parameter in both
    phases together. What the second phase rounds away is kept, too.

    8 and 4 bits are multiples of the largest magnitude of the block over 127 and 7; 2
    bits are the sign and one of two magnitudes, the means of those below and above the
    block's mean; 1 bit is the sign, with the mean magnitude (`sign`).

    Args:
      bits: 8, 4, 2 or 1.
      block: elements with scales of their own; a multiple of 8.
      stochastic: whether to round to one of the two neighbours at random and without
        bias (QSGD), with 8 or 4 bits. Feedback is then not needed, and the second phase
        has none.
      key: an int, a key from `jax.random.key`, or the uint32 words of one; required
        with ``stochastic`` and not allowed otherwise.

    Raises:
      ValueError: an argument is out of its range, or only one of ``stochastic`` and
        ``key`` is given.
      TypeError: an argument has the wrong type.

    References:
      Alistarh et al. 2017, "QSGD: Communication-Efficient SGD via Gradient Quantization
      and Encoding", arXiv 1610.02132

      Wang et al. 2023, "ZeRO++: Extremely Efficient Collective Communication for Giant
      Model Training", arXiv 2306.10209
    """
    if isinstance(bits, bool) or bits not in BITS:
        raise ValueError(f"`bits` must be one of {BITS}, got {bits!r}")
    block = _block(block)
    stochastic = checks.flag("stochastic", stochastic)
    if stochastic != (key is not None):
        raise ValueError(
            "`key` must be given with `stochastic` and only then, got"
            f" stochastic={stochastic} and key={key!r}"
        )
    if stochastic and bits < 4:
        raise ValueError(f"`bits` must be 8 or 4 with `stochastic`, got {bits}")
    if bits == 1:
        return sign(block=block)
    code = TwoLevels() if bits == 2 else Linear(bits)
    return Quantized(code, block, gaussian.key_words(key) if stochastic else None)


def sign(scale: Literal["mean", "norm"] = "mean", *, block: int = 512) -> Compressor:
    """Sends signs, one bit for each element, with a magnitude for each block.

    It is exchanged in two phases, as by `quantized`. 0 counts as positive.

    Args:
      scale: the magnitude: the mean of the block's, or its norm over the square root of
        its length.
      block: elements with a magnitude of their own; a multiple of 8.

    Raises:
      ValueError: an argument is out of its range.

    References:
      Karimireddy et al. 2019, "Error Feedback Fixes SignSGD and other Gradient
      Compression Schemes", arXiv 1901.09847
    """
    checks.choice("scale", scale, ("mean", "norm"))
    return Quantized(Sign(scale), _block(block))


def low_rank(rank: int, *, key: KeyLike = 0) -> Compressor:
    r"""Sends two factors of rank r of each matrix M (PowerSGD).

    With Q of the step before, at first normal: :math:`P = \\overline{M} Q` is made
    orthonormal, and :math:`Q = \\overline{M}^\\top P`; the mean is :math:`P Q^\\top`.
    Kernels are matrices whose columns are their last axis. A matrix of a × b takes
    4 r (a + b) bytes; where that is not less than half of it, and for vectors, the
    mean is dense.

    Args:
      rank: r, at least 1.
      key: an int, a key from `jax.random.key`, or the uint32 words of one, for the
        first Q; the same on all workers.

    Raises:
      ValueError: ``rank`` is below 1.
      TypeError: an argument has the wrong type.

    References:
      Vogels et al. 2019, "PowerSGD: Practical Low-Rank Gradient Compression for
      Distributed Optimization", arXiv 1905.13727
    """
    return LowRank(checks.positive_integer("rank", rank), gaussian.key_words(key))


def _density(value: float) -> float:
    density: float = checks.number("density", value, "in (0, 1]", lambda x: 0 < x <= 1)
    return density


def _block(value: int) -> int:
    block: int = checks.positive_integer("block", value)
    if block % 8:
        raise ValueError(f"`block` must be a multiple of 8, got {block}")
    return block
