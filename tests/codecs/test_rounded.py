"""Numbers of 16 and 8 bits: what they round to, and that rounding at random is fair."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from optax_extras.codecs import bfloat16, float8

from coding import coded, words

LARGEST = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)


def of_every_exponent(signs=(1, -1)):
    """Finite float32 numbers, some of each exponent, subnormal ones too."""
    exponents = np.arange(255, dtype=np.uint32) << 23
    mantissas = np.random.default_rng(0).integers(0, 2**23, (4, 255), np.uint32)
    mantissas[0] = 0
    numbers = (exponents[None] | mantissas).view(np.float32).ravel()
    return np.concatenate([sign * numbers for sign in signs])


def test_bfloat16_at_random_has_the_exact_mean():
    """The mean over all words that differ, for every exponent and both signs."""
    numbers = of_every_exponent()
    numbers = numbers[np.abs(numbers) <= LARGEST]
    # Of mantissas with their last 6 bits at 0, so many words differ.
    step = 2**6
    numbers = (numbers.view(np.uint32) & ~np.uint32(step - 1)).view(np.float32)
    drawn = np.arange(0, 2**16, step, dtype=np.uint32)[:, None] << 16
    shape = len(drawn), len(numbers)
    tiled = np.broadcast_to(numbers, shape).ravel()
    _, found = coded(bfloat16(), tiled, np.broadcast_to(drawn, shape).ravel())
    mean = found.reshape(shape).mean(0, dtype=np.float64)
    np.testing.assert_array_equal(mean, numbers.astype(np.float64))


def test_bfloat16_against_numpy():
    """Up where the part above and a uniform number make a whole."""
    numbers = of_every_exponent()
    drawn = words(len(numbers))
    code, found = coded(bfloat16(), numbers, drawn)
    assert code.dtype == jnp.bfloat16
    x = np.abs(numbers.astype(np.float64))
    exponent = np.maximum(np.floor(np.log2(np.maximum(x, 1e-300))), -126)
    unit = 2.0 ** (exponent - 7)
    low = np.floor(x / unit)
    up = x / unit - low + (drawn >> 16) / 2**16 >= 1
    expected = np.minimum((low + up) * unit, LARGEST) * np.sign(numbers)
    np.testing.assert_array_equal(found, expected)


def test_bfloat16_to_the_nearest_is_that_of_the_ieee():
    numbers = of_every_exponent()
    ties = (numbers.view(np.uint32) & np.uint32(0xFFFF0000) | np.uint32(0x8000)).view(
        np.float32
    )
    numbers = np.concatenate([numbers, ties])
    _, found = coded(bfloat16(stochastic=False), numbers, words(len(numbers)))
    with np.errstate(over="ignore"):
        expected = numbers.astype(ml_dtypes.bfloat16).astype(np.float32)
    expected = np.clip(expected, -LARGEST, LARGEST)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("stochastic", [True, False])
def test_bfloat16_of_numbers_at_the_end(stochastic):
    """No finite number becomes infinite; NaN and infinities stay, as −0 does."""
    payload = np.uint32([0x7F800001, 0xFFFFFFFF, 0x7FC00000]).view(np.float32)
    numbers = np.float32([np.inf, -np.inf, -0.0, 3.4028235e38, -3.4028235e38])
    most = np.full(8, 0xFFFFFFFF)
    _, found = coded(bfloat16(stochastic), np.concatenate([numbers, payload]), most)
    expected = [np.inf, -np.inf, -0.0, LARGEST, -LARGEST, np.nan, np.nan, np.nan]
    np.testing.assert_array_equal(found, np.float32(expected))
    assert np.signbit(found[2])


def test_what_bfloat16_holds_stays():
    halves = np.arange(2**16, dtype=np.uint32) << 16
    numbers = halves.view(np.float32)
    numbers = numbers[~np.isnan(numbers)]
    _, found = coded(bfloat16(), numbers, np.full(len(numbers), 0xFFFFFFFF))
    np.testing.assert_array_equal(found.view(np.uint32), numbers.view(np.uint32))


FORMATS = {"e5m2": ml_dtypes.float8_e5m2, "e4m3": ml_dtypes.float8_e4m3fn}


@pytest.mark.parametrize("name", FORMATS)
def test_float8_to_the_nearest_against_ml_dtypes(name):
    x = (np.random.default_rng(0).normal(size=4096) ** 5).astype(np.float32)
    code, found = coded(float8(name, stochastic=False), x, words(4096))
    kind, blocks = FORMATS[name], x.reshape(16, 256)
    scales = np.abs(blocks).max(1)
    np.testing.assert_array_equal(code.scales, scales)
    most = float(ml_dtypes.finfo(kind).max)
    scaled = blocks * (1 / scales)[:, None] * np.float32(most)
    smallest = float(ml_dtypes.finfo(kind).smallest_subnormal)
    rounded = scaled.astype(kind).astype(np.float32)
    expected = np.where(rounded == 0, np.copysign(smallest, scaled), rounded)
    numbers = np.asarray(code.codes).view(kind).astype(np.float32)
    np.testing.assert_array_equal(numbers.reshape(16, 256), expected)
    error = np.abs(found - x) / np.repeat(scales, 256)
    assert error.max() < 2.0 ** -ml_dtypes.finfo(kind).nmant / 2


@pytest.mark.parametrize("name", FORMATS)
def test_float8_at_random_has_the_right_mean(name):
    x = np.abs(np.random.default_rng(0).normal(size=255)).astype(np.float32)
    x = np.concatenate([x, np.float32([x.max() * 2])])
    count = 512
    drawn = np.arange(count, dtype=np.uint64)[:, None] * (2**32 // count)
    tiled = np.tile(x, (count, 1))
    _, found = coded(float8(name), tiled, np.tile(drawn, (1, 256)))
    unit = found.max(0) - found.min(0)
    error = np.abs(found.mean(0, dtype=np.float64) - x)
    # What is very near to a number of the format is that.
    assert (error <= unit * (1 / count + 1e-4) + 2e-5 * x).all()
    assert (unit > 0).sum() > 200


@pytest.mark.parametrize("name", FORMATS)
def test_every_float8_stays(name):
    numbers = np.arange(256, dtype=np.uint8).view(FORMATS[name]).astype(np.float32)
    numbers = numbers[np.isfinite(numbers)]
    for scale in np.float32([1, 3.7e-20, 8.1e25]):
        x = (numbers / numbers.max() * scale)[None].astype(np.float32)
        code, found = coded(float8(name), x, np.full(x.shape, 0xFFFFFFFF))
        again, _ = coded(float8(name), found, words(x.shape))
        np.testing.assert_array_equal(code.codes, again.codes)
        np.testing.assert_array_equal(code.scales, again.scales)


@pytest.mark.parametrize("name", FORMATS)
def test_a_scale_that_is_too_small_cuts_off(name):
    """XLA may round what a maximum is taken of in another way than what is coded."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=256), jnp.float32)
    codec = float8(name)
    code = codec.encode(x, 0.5 * codec.statistics(x), jnp.zeros(256, jnp.uint32))
    found = codec.decode(code, (256,))
    np.testing.assert_allclose(jnp.abs(found).max(), jnp.abs(x).max() / 2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bfloat16(1), TypeError, "`stochastic` must be True or False"),
        (lambda: float8("e3m4"), ValueError, "`format` must be .* got 'e3m4'"),
        (lambda: float8(block=0), ValueError, "`block` must be >= 1"),
        (
            lambda: float8(stochastic=None),
            TypeError,
            "`stochastic` must be True or False",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
