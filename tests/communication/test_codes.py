"""What messages of sparse numbers stand for, and how long they are."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

import optax_extras as ox
from optax_extras import compressors as c

from communication.test_mean import keep_top, mean_of
from communication.workers import N, gradients, run

ROWS = 200
TWO_BITS = c.top_k(64 / 4096, chunk=4096, bits=2)


def sent(compressor, x):
    """What the message about a leaf stands for."""
    found = coded(compressor, x.shape)(jnp.asarray(x, jnp.float32))
    return np.asarray(found, np.float64)


@cache
def coded(compressor, shape):
    """From a leaf to what the message about it stands for, compiled once."""
    start = jnp.int32(0)
    site = c.Site(shape, jnp.zeros(2, jnp.uint32), start, start)
    return jax.jit(lambda x: compressor.decode(compressor.encode(x, site), site))


def least_error(magnitudes):
    """The squared error of two means, over all ways to part a row in two."""
    ordered = np.sort(magnitudes)
    parts = (np.split(ordered, [i]) for i in range(1, len(ordered)))
    return min(sum(len(p) * p.var() for p in pair) for pair in parts)


@pytest.mark.parametrize(
    ("draw", "most"),
    [("standard_normal", 0.006), ("standard_t", 0.06), ("standard_cauchy", 0.2)],
)
def test_error_of_two_bits(draw, most):
    """Tails are heavy in gradients; a threshold at the mean has 17 % of Student's t."""
    arguments = (3,) if draw == "standard_t" else ()
    x = getattr(np.random.default_rng(0), draw)(*arguments, size=(ROWS, 4096))
    found = sent(TWO_BITS, x).reshape(x.shape)
    chosen = np.where(found != 0, x, 0)
    assert ((found != 0).sum(axis=1) == 64).all()
    assert (np.sign(found) == np.sign(chosen)).all()
    np.testing.assert_array_equal(
        np.sort(np.abs(chosen))[:, -64:], np.sort(np.abs(x))[:, -64:]
    )
    errors = ((found - chosen) ** 2).sum(axis=1)
    squares = (chosen**2).sum(axis=1)
    assert errors.sum() / squares.sum() <= most
    least = [least_error(np.abs(row[row != 0])) for row in chosen]
    # bfloat16 rounds the two magnitudes by up to 2^-8.
    np.testing.assert_array_less(errors, least + 2.0**-16 * squares)


def test_two_bits_of_few_numbers():
    """Zeros beyond the leaf are no part of the means; those in it are."""
    x = np.zeros(4096 + 6)
    assert not sent(TWO_BITS, x).any()
    x[4096:] = 8, -8, 2, 2, -1, -3
    np.testing.assert_array_equal(
        sent(TWO_BITS, x), [*np.zeros(4096), 8, -8, 2, 2, -2, -2]
    )
    x[:4096:500] = -5
    np.testing.assert_array_equal(sent(TWO_BITS, x)[:4096], x[:4096])


@pytest.mark.parametrize("bits", [16, 2])
@pytest.mark.parametrize("scale", [3.4e38, 1e-37])
def test_values_at_the_limits_of_float32(bits, scale):
    """3.4e38 is above the largest number of bfloat16; sums and squares are inf or 0."""
    x = np.float32([1, -0.5] * 40) * np.float32(scale)
    found = sent(c.top_k(0.75, chunk=8, bits=bits), x)
    assert np.count_nonzero(found) == 60
    assert (np.abs(found - x)[found != 0] <= 0.005 * scale).all()


@pytest.mark.parametrize("compressor", [TWO_BITS, c.dct_top_k()], ids=["2 bit", "dct"])
def test_bytes_of_a_message(compressor):
    shape = (512, 256)
    assert compressor.message_bytes(shape) <= 0.03 * 512 * 256
    tx = mean_of(compressor)
    found = ox.wire_bytes(tx, {"w": jnp.zeros(shape)}, axis_name="data", workers=N)
    assert found.sent <= 0.03 * 512 * 256


def test_values_of_fourteen_bits():
    one, two = (c.top_k(k / 4096, chunk=4096, bits=2) for k in (32, 64))
    lengths = [compressor.message_bytes((4096,)) for compressor in (one, two)]
    assert 8 * (lengths[1] - lengths[0]) == 14 * 32


def test_densities_by_steps_of_two_bits():
    stages = [c.top_k(density, chunk=64, bits=2) for density in (0.5, 0.1)]
    staged = c.top_k({0: 0.5, 1: 0.1}, chunk=64, bits=2)
    assert staged.stages == tuple(stages)
    assert staged.stages != c.top_k({0: 0.5, 1: 0.1}, chunk=64).stages


def test_all_of_it_is_sent_in_float32():
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    for compressor in (
        c.top_k(1.0, chunk=7, bits=2),
        c.dct_top_k(30),
        c.dct_top_k(9, chunk=3),
    ):
        np.testing.assert_array_equal(sent(compressor, x), x)


@pytest.mark.parametrize("shape", [(40, 56), (70,), (2, 3, 20), ()])
def test_coefficients_are_those_of_scipy(shape):
    """With one coefficient less than all, and blocks of the whole leaf."""
    x = np.random.default_rng(0).normal(size=shape)
    k = max(x.size - 1, 1)
    waves = scipy.fft.dctn(x.reshape(-1, shape[-1] if shape else 1), norm="ortho")
    if shape:
        waves.reshape(-1)[np.abs(waves).argmin()] = 0
    expected = scipy.fft.idctn(waves, norm="ortho").reshape(shape)
    found = sent(c.dct_top_k(k, chunk=128), x)
    assert np.linalg.norm(found - expected) <= 2**-8 * np.linalg.norm(x)
    assert x.size == 1 or np.linalg.norm(found - x) >= np.linalg.norm(expected - x)


def test_one_wave_is_one_coefficient():
    """Zeros fill the last blocks, whose waves end at the leaf."""
    places = np.arange(64) + 0.5
    x = np.outer(np.cos(np.pi / 64 * 3 * places), np.cos(np.pi / 64 * 5 * places))
    np.testing.assert_allclose(
        sent(c.dct_top_k(1), np.tile(x, (2, 3))), np.tile(x, (2, 3)), rtol=0, atol=4e-3
    )
    cut = sent(c.dct_top_k(2000), np.tile(x, (2, 3))[:100, :150])
    assert np.linalg.norm(cut - np.tile(x, (2, 3))[:100, :150]) < 0.01 * np.linalg.norm(
        x
    )


def test_the_mean_of_senders_is_one_of_coefficients():
    """Two workers send the third wave, and one the fifth; zeros are the first."""
    places = np.arange(64) + 0.5
    waves = [np.cos(np.pi / 64 * wave * places) for wave in (3, 5)]
    grads = {"v": np.zeros((1, N, 64), np.float32)}
    grads["v"][0, :3] = 4 * waves[0], 2 * waves[0], 8 * waves[1]
    for average, wide, narrow in (("all", 1.5, 2), ("senders", 3, 8)):
        tx = mean_of(c.dct_top_k(1), min_size=0, average=average)
        found, _ = run(tx, grads)
        expected = wide * waves[0] + narrow * waves[1]
        np.testing.assert_allclose(found["v"][0], expected, atol=0.05)


def test_sums_that_overflow_skip_the_step():
    grads = gradients(3, shapes={"w": (48, 35)})
    grads["w"][1, 2] *= 1e36
    tx = mean_of(c.dct_top_k())
    found, state = run(tx, grads)
    assert int(state.skipped) == 1
    assert not found["w"][1].any()
    expected, _ = run(tx, {"w": grads["w"][[0, 2]]})
    np.testing.assert_array_equal(found["w"][[0, 2]], expected["w"])


@pytest.mark.daily("decay1", "0.5")
@pytest.mark.parametrize("decay", [0.5, jnp.float32(0.5), 0.0])
def test_what_waits_fades(decay):
    steps = 20
    grads = gradients(steps)
    tx = mean_of(c.top_k(0.1, chunk=128), decay=decay)
    found, state = run(tx, grads)
    residual = {name: np.zeros(grads[name].shape[1:]) for name in ("e", "w")}
    for t in range(steps):
        for name, kept in residual.items():
            total = grads[name][t] + float(decay) * kept
            given = np.stack([keep_top(x, 0.1, 128) for x in total])
            residual[name] = total - given
            np.testing.assert_allclose(found[name][t], given.mean(0), atol=2e-6)
    for name, kept in residual.items():
        np.testing.assert_allclose(state.residual.value[name], kept, atol=1e-6)


def test_nothing_fades_in_a_step_that_is_skipped():
    grads = {"e": gradients(3)["e"]}
    grads["e"][1, 0, 0] = np.nan
    tx = mean_of(c.top_k(0.1), decay=0.5)
    found, _ = run(tx, grads)
    expected, _ = run(tx, {"e": grads["e"][[0, 2]]})
    np.testing.assert_array_equal(found["e"][2], expected["e"][1])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: c.top_k(0.1, bits=2),
            ValueError,
            "`chunk` must be given with 2 `bits`",
        ),
        (lambda: c.top_k({0: 0.1}, bits=2), ValueError, "`chunk` must be given"),
        (lambda: c.top_k(0.1, chunk=8, bits=4), ValueError, "`bits` must be one of"),
        (lambda: c.top_k(0.1, chunk=8, bits=[2]), ValueError, "`bits` must be one of"),
        (lambda: c.dct_top_k(0), ValueError, "`k` must be >= 1"),
        (lambda: c.dct_top_k(chunk=0), ValueError, "`chunk` must be >= 1"),
        (lambda: c.dct_top_k(0.5), TypeError, "`k` must be an integer"),
        (
            lambda: mean_of(TWO_BITS, decay=1.5),
            ValueError,
            r"`decay` must be in \[0, 1\]",
        ),
        (
            lambda: mean_of(TWO_BITS, decay=jnp.bfloat16(1)),
            TypeError,
            "`decay` must be",
        ),
        (
            lambda: mean_of(TWO_BITS, decay=0.9, feedback=False),
            ValueError,
            "`decay` must be 1 without `feedback`.*got 0.9",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
    assert mean_of(TWO_BITS, decay=1, feedback=False)
