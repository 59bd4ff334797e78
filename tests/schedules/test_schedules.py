"""The schedules against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox

COUNTS = np.array([0, 1, 2, 9, 10, 11, 249, 250, 499, 500, 10**6, 2**31 - 1])


@pytest.mark.parametrize("staircase", [True, False])
@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("rate", [0, 0.0, 0.5])
def test_inverse_time_decay(rate, steps, staircase):
    schedule = ox.inverse_time_decay(0.1, rate, steps, staircase)
    periods = COUNTS // steps if staircase else COUNTS / steps
    expected = 0.1 / (1 + rate * periods)
    np.testing.assert_allclose(jax.vmap(schedule)(jnp.int32(COUNTS)), expected, 1e-6)
    np.testing.assert_allclose([schedule(int(t)) for t in COUNTS], expected, 1e-6)


def test_staircase_is_exact_at_large_counts():
    schedule = ox.inverse_time_decay(1.0, 1.0, 1000, staircase=True)
    # 33554999 is 33555000 in float32, a stage later.
    assert float(schedule(jnp.int32(33554999))) == np.float32(1 / 33555)


def test_inverse_time_decay_matches_optax_where_they_meet():
    ours = ox.inverse_time_decay(0.1, 1.0, 10)
    theirs = optax.polynomial_schedule(0.1, 0.1, 1, 10)
    assert float(ours(0)) == pytest.approx(float(theirs(0)))


@pytest.mark.parametrize("maximum", [0.0, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("steps", [1, 250])
def test_sutskever_momentum(maximum, steps):
    schedule = ox.sutskever_momentum(maximum, steps)
    power = 2.0 ** (-1 - np.log2(COUNTS // steps + 1))
    expected = np.minimum(1 - power, maximum)
    np.testing.assert_allclose(jax.vmap(schedule)(jnp.int32(COUNTS)), expected, 1e-6)


def test_schedules_take_arrays_and_keep_strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        rate = ox.inverse_time_decay(jnp.float32(0.1), jnp.int32(1), jnp.int32(10))
        assert float(rate(jnp.int32(10))) == pytest.approx(0.05)
        momentum = ox.sutskever_momentum(jnp.float32(0.9), jnp.int32(10))
        assert float(momentum(jnp.int32(10))) == pytest.approx(0.75)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint32])
def test_steps_of_another_integer_dtype_than_the_count(dtype):
    with jax.numpy_dtype_promotion("strict"):
        rate = ox.inverse_time_decay(0.1, 0.5, dtype(10), staircase=True)
        assert float(rate(jnp.int32(29))) == pytest.approx(0.05)
        momentum = ox.sutskever_momentum(0.9, dtype(10))
        assert float(momentum(jnp.int32(19))) == pytest.approx(0.75)


def test_transition_steps_may_be_a_numpy_integer():
    for steps in (np.int64(10), np.array(10)):
        assert float(ox.inverse_time_decay(1.0, 1.0, steps)(10)) == 0.5
        assert float(ox.inverse_time_decay(1.0, 1.0, steps, True)(19)) == 0.5


def test_schedules_under_x64(x64):
    assert ox.inverse_time_decay(0.1, 0.5)(3).dtype == jnp.float64
    assert float(ox.inverse_time_decay(0.1, 0.5)(1)) == 0.1 / 1.5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ox.inverse_time_decay(-1, 1), ValueError, "`init_value` must be"),
        (lambda: ox.inverse_time_decay(1, -1), ValueError, "`decay_rate` must be"),
        (lambda: ox.inverse_time_decay(1, 1, 0), ValueError, "must be >= 1 and"),
        (
            lambda: ox.inverse_time_decay(1, 1, 2**31),
            ValueError,
            r"<= 2\*\*31 - 1, got",
        ),
        (lambda: ox.inverse_time_decay(1, 1, 1.5), TypeError, "an integer, got 1.5"),
        (lambda: ox.inverse_time_decay(1, 1, True), TypeError, "an integer, got True"),
        (lambda: ox.inverse_time_decay(1, 1, 1, 1), TypeError, "`staircase` must be"),
        (lambda: ox.sutskever_momentum(1.0), ValueError, r"`max_value` must be in \[0"),
        (
            lambda: ox.sutskever_momentum(0.9, 0),
            ValueError,
            "`steps_per_stage` must be",
        ),
        (
            lambda: ox.sutskever_momentum(0.9, jnp.ones(2, int)),
            ValueError,
            r"`steps_per_stage` must be a scalar, got an array of shape \(2,\)",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
