"""Demon against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_extras as ox


@pytest.mark.parametrize("start", [0.0, 0.1, 0.9, 0.999])
@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_oracle(start, steps):
    counts = np.arange(2 * steps + 20)
    ratio = np.maximum(1 - counts / steps, 0)
    schedule = ox.demon(start, steps)
    start = np.float64(np.float32(start))
    expected = start * ratio / ((1 - start) + start * ratio)
    np.testing.assert_allclose(jax.vmap(schedule)(jnp.int32(counts)), expected, 1e-6)
    few = counts[:: max(1, steps // 10)]
    found = [schedule(int(t)) for t in few]
    np.testing.assert_allclose(found, expected[few], 1e-6)


@pytest.mark.parametrize("start", np.linspace(0, 0.999, 7))
def test_end_points_are_exact(start):
    schedule = ox.demon(start, 30)
    assert schedule(0) == jnp.float32(start)
    assert schedule(30) == schedule(31) == schedule(2**31 - 1) == 0


def test_the_contribution_to_later_steps_falls_linearly():
    beta = np.float64(jax.vmap(ox.demon(0.9, 100))(jnp.arange(100)))
    np.testing.assert_allclose(beta / (1 - beta), 9 * np.arange(100, 0, -1) / 100, 1e-5)


def test_the_end_of_a_long_run_is_exact():
    """In float32, 2**30 − 3 is 2**30."""
    left = 3 / 2**30
    expected = 0.9 * left / (0.1 + 0.9 * left)
    assert float(ox.demon(0.9, 2**30)(jnp.int32(2**30 - 3))) == pytest.approx(expected)


def test_every_hyperparameter_is_mapped():
    starts, steps = jnp.array([0.9, 0.99]), jnp.array([10, 30])
    found = jax.vmap(lambda *values: ox.demon(*values)(jnp.int32(7)))(starts, steps)
    expected = [ox.demon(0.9, 10)(7), ox.demon(0.99, 30)(7)]
    np.testing.assert_allclose(found, expected, 1e-6)


def test_strict_promotion_and_double_precision(x64):
    with jax.numpy_dtype_promotion("strict"):
        schedule = ox.demon(jnp.float32(0.9), jnp.uint32(10))
        assert schedule(jnp.int32(5)).dtype == jnp.float64
        assert float(ox.demon(0.9, 10)(5)) == pytest.approx(0.45 / 0.55, rel=1e-15)


def test_as_the_momentum_of_sgd():
    """The paper's SGD with Demon, step by step in float64."""
    gradients = np.random.default_rng(0).normal(size=(30, 5))
    tx = ox.momentum_sgd(0.1, ox.demon(0.9, 20), learning_rate_inside=False)
    v, theta, expected = np.zeros(5), np.zeros(5), []
    for t, g in enumerate(gradients):
        ratio = max(1 - t / 20, 0)
        v = 0.9 * ratio / (0.1 + 0.9 * ratio) * v + g
        theta = theta - 0.1 * v
        expected.append(theta)
    _, updates = jax.lax.scan(
        lambda state, g: tx.update(g, state)[::-1],
        tx.init(jnp.zeros(5)),
        jnp.float32(gradients),
    )
    np.testing.assert_allclose(np.cumsum(updates, 0), expected, 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1.0, 10), ValueError, r"`init_value` must be in \[0, 1\).*, got 1.0"),
        ((-0.1, 10), ValueError, r"`init_value` must be in \[0, 1\).*, got -0.1"),
        ((0.9, 0), ValueError, "`decay_steps` must be >= 1 and .*, got 0"),
        ((0.9, 1.5), TypeError, "`decay_steps` must be an integer, got 1.5"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.demon(*arguments)
