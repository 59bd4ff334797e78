"""Codes of 8 and 4 bits in blocks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from optax_extras.codecs import blockwise, float8
from optax_extras.codecs._grid import box

from coding import coded, words

KINDS = [(8, True), (8, False), (4, True), (4, False)]
of_every_kind = pytest.mark.parametrize(("bits", "signed"), KINDS)
SHAPES = [(), (1,), (3,), (256,), (1000,), (1031,), (7, 33), (64, 10), (3, 3, 8, 16)]
ALL_ONES = 0xFFFFFFFF


def numbers(shape, signed, seed=0):
    """Numbers that differ by orders of magnitude."""
    x = np.random.default_rng(seed).normal(size=shape) ** 5
    return (x if signed else np.abs(x)).astype(np.float32)


def blocks_of(x, sizes):
    """The index of its block for each element of an array."""
    index = np.zeros(x.shape, int)
    for axis, size in enumerate(sizes):
        number = -(-x.shape[axis] // size)
        place = np.arange(x.shape[axis]) // size
        index = index * number + place.reshape([-1] + [1] * (x.ndim - axis - 1))
    return index


def oracle(x, drawn, bits, signed, block):
    """What codes stand for, the scales, and how near a decision was; float64."""
    levels, power = 2 ** (bits - signed) - 1, 2 if signed else 4
    index = blocks_of(x, box(x.shape, block))
    scales = np.zeros(index.max() + 1)
    np.maximum.at(scales, index.ravel(), np.abs(x).ravel())
    scale = np.where(scales[index] > 0, scales[index], 1)
    magnitude = np.abs(x.astype(np.float64)) / scale
    low = np.minimum(np.floor(magnitude ** (1 / power) * levels), levels - 1)
    below, above = (low / levels) ** power, ((low + 1) / levels) ** power
    part = (magnitude - below) / (above - below)
    uniform = (drawn >> 8) / 2**24
    code = low + (part > uniform)
    if not signed:
        code = np.where(x > 0, np.maximum(code, 1), code)
    return np.sign(x) * (code / levels) ** power * scale, scales, part - uniform


@pytest.mark.daily("8-True-*", "4-False-*")
@pytest.mark.parametrize("shape", SHAPES)
@of_every_kind
def test_against_numpy(bits, signed, shape):
    x, drawn = numbers(shape, signed), words(shape)
    codec = blockwise(bits, signed=signed, stochastic=True)
    code, found = coded(codec, x, drawn)
    expected, scales, distance = oracle(x, drawn, bits, signed, 256)
    np.testing.assert_array_equal(np.ravel(code.scales), scales.astype(np.float32))
    sure = np.abs(distance) > 1e-4
    assert sure.mean() > 0.99
    np.testing.assert_allclose(found[sure], expected[sure], rtol=1e-5)


@of_every_kind
def test_to_the_nearest_against_numpy(bits, signed):
    x = numbers((4, 512), signed)
    codec = blockwise(bits, signed=signed, stochastic=False)
    _, found = coded(codec, x, words(x.shape))
    expected, _, distance = oracle(x, np.full(x.shape, 2**31), bits, signed, 256)
    sure = np.abs(distance) > 1e-4
    np.testing.assert_allclose(found[sure], expected[sure], rtol=1e-5)


def test_first_moments_of_4_bits_are_at_random_above_the_smallest_level():
    x = numbers((4, 512), signed=True)
    drawn = words(x.shape)
    (code, found), (_, nearest), (_, at_random) = (
        coded(blockwise(4, stochastic=kind), x, drawn) for kind in (None, False, True)
    )
    smallest = np.repeat(code.scales, 256, axis=1) / 49
    is_small = np.abs(x) < smallest
    np.testing.assert_array_equal(found, np.where(is_small, nearest, at_random))
    for other in (nearest, at_random):
        assert (found != other).any()
    assert (np.abs(found) <= 4 * np.abs(x)).all()


@of_every_kind
def test_at_random_has_the_right_mean(bits, signed):
    """The mean over words that divide the range evenly, given the scales."""
    x = np.sort(numbers((256,), signed))
    x = x if signed else np.maximum(x, x.max() * 2.0 ** -(bits * 2))
    codec, count = blockwise(bits, signed=signed, stochastic=True), 1024
    drawn = np.arange(count, dtype=np.uint64) * (2**32 // count)
    # A block for each word.
    _, found = coded(codec, np.tile(x, (count, 1)), np.tile(drawn[:, None], (1, 256)))
    unit = found.max(0) - found.min(0)
    error = np.abs(found.mean(0, dtype=np.float64) - x)
    # What is this near to 0 is 0.
    smallest = np.abs(x).max() * (2 ** (bits - signed) - 1.0) ** -(2 if signed else 4)
    limit = unit * (1 / count + 1e-4) + 4e-5 * smallest + 1e-6 * np.abs(x)
    assert (error <= limit).all()
    assert (unit > 0).sum() > 100


@of_every_kind
@pytest.mark.parametrize("stochastic", [True, False])
def test_every_code_stays(bits, signed, stochastic):
    """A state that a step leaves alone does not move, whatever its scales."""
    codec = blockwise(bits, signed=signed, stochastic=stochastic)
    levels = 2 ** (bits - signed) - 1
    part = np.arange(-levels * signed, levels + 1) / levels
    exponents = np.append(np.arange(-90, 120, 7), 124)
    scales = (
        np.random.default_rng(0).uniform(1, 2, len(exponents)) * 2.0**exponents
    ).astype(np.float32)
    power = np.sign(part) * np.abs(part) ** (2 if signed else 4)
    x = (power * scales[:, None]).astype(np.float32)
    first, found = coded(codec, x, words(x.shape))
    for drawn in (np.zeros(x.shape), np.full(x.shape, ALL_ONES), words(x.shape, 2)):
        again, same = coded(codec, found, drawn)
        np.testing.assert_array_equal(again.codes, first.codes)
        np.testing.assert_array_equal(again.scales, first.scales)
        np.testing.assert_array_equal(same, found)


@of_every_kind
def test_zeros_stay_zeros(bits, signed):
    for x in (np.zeros((3, 300), np.float32), np.zeros(0, np.float32)):
        code, found = coded(
            blockwise(bits, signed=signed), x, np.full(x.shape, ALL_ONES)
        )
        np.testing.assert_array_equal(found, x)
        np.testing.assert_array_equal(code.codes, 0)
    mixed = np.float32([0, 1, 0, 1e-3])
    _, found = coded(blockwise(bits, signed=signed), mixed, np.zeros(4))
    np.testing.assert_array_equal(found[[0, 2]], 0)


@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_not_zero_never_becomes_zero(bits):
    """Adam divides by the root of it."""
    x = np.geomspace(1e-20, 1, 256).astype(np.float32)
    for scale in np.float32([1, 1e-8]):
        for word in (0, ALL_ONES):
            codec = blockwise(bits, signed=False)
            _, found = coded(codec, scale * x, np.full(256, word))
            levels = 2**bits - 1
            assert (found >= 0.999 * scale * (1 / levels) ** 4).all()


@of_every_kind
def test_what_is_not_finite_makes_its_block_nan(bits, signed):
    for bad in (np.nan, np.inf, 2.0**126, 3e38):
        x = np.ones((2, 512), np.float32)
        x[1, 300] = bad
        _, found = coded(blockwise(bits, signed=signed), x, words(x.shape))
        assert np.isnan(found[1, 256:]).all()
        np.testing.assert_array_equal(found[0], 1)
        np.testing.assert_array_equal(found[1, :256], 1)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_negative_number_is_not_taken_for_another(bits):
    x = np.ones((1, 512), np.float32)
    x[0, 3], x[0, 300] = -1e-3, -0.0
    _, found = coded(blockwise(bits, signed=False), x, words(x.shape))
    assert np.isnan(found[0, :256]).all()
    assert (found[0, 256:] == np.abs(x[0, 256:])).all()


@of_every_kind
def test_bytes(bits, signed):
    shape = jax.ShapeDtypeStruct((512, 768), jnp.float32)
    codec = blockwise(bits, signed=signed)

    def encode(x):
        return codec.encode(x, codec.statistics(x), jnp.zeros(x.shape, jnp.uint32))

    code = jax.eval_shape(encode, shape)
    size = sum(x.size * x.dtype.itemsize for x in code)
    assert size * 8 == 512 * 768 * (bits + 32 / 256)


@given(
    st.lists(st.integers(0, 5000), max_size=4).filter(lambda s: math.prod(s) < 10**7),
    st.integers(1, 1024),
)
def test_boxes(shape, most):
    sizes = box(tuple(shape), most)
    assert len(sizes) == len(shape)
    assert math.prod(sizes) <= most
    for size, part in list(zip(shape, sizes, strict=True))[:-1]:
        assert part >= 1
        assert size % part == 0
    if shape and shape[-1] > most:  # nearly full, and no more blocks than needed
        assert sizes[-1] > most / 2 - 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), ()),
        ((4096, 4096), (1, 256)),
        ((4096, 64), (4, 64)),
        ((512, 10), (16, 10)),
        ((3, 3, 64, 128), (1, 1, 2, 128)),
        ((1000,), (250,)),
        ((1031,), (207,)),
        ((6, 35, 10), (3, 7, 10)),
        ((9, 0, 3), (9, 1, 3)),
        ((50257,), (256,)),
        ((16, 4, 4), (16, 4, 4)),
        ((1000003, 3), (1, 3)),
    ],
)
def test_boxes_of_some_shapes(shape, expected):
    assert box(shape, 256) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bits": 5}, ValueError, "`bits` must be 8 or 4, got 5"),
        ({"bits": 8.0}, TypeError, "`bits` must be an int"),
        ({"block": 0}, ValueError, "`block` must be >= 1"),
        ({"signed": 1}, TypeError, "`signed` must be True or False"),
        ({"stochastic": "no"}, TypeError, "`stochastic` must be True or False"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        blockwise(**arguments)


def test_options_are_part_of_equality():
    assert blockwise() == blockwise(8, 256)
    assert blockwise() != blockwise(signed=False)
    assert blockwise() == blockwise(stochastic=True)
    kinds = {blockwise(4, stochastic=kind) for kind in (None, True, False)}
    assert len(kinds) == 3
    assert blockwise(4, signed=False) == blockwise(4, signed=False, stochastic=True)
    assert float8() != float8("e4m3")


@of_every_kind
def test_a_scale_that_is_too_small_cuts_off(bits, signed):
    """XLA may round what a maximum is taken of in another way than what is coded."""
    x = numbers((256,), signed)
    codec = blockwise(bits, signed=signed)
    code = codec.encode(
        jnp.asarray(x), 0.5 * codec.statistics(x), jnp.zeros(256, jnp.uint32)
    )
    found = np.asarray(codec.decode(code, (256,)))
    np.testing.assert_allclose(np.abs(found).max(), np.abs(x).max() / 2)
    assert (found * x >= 0).all()
