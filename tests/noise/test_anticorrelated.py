"""Anticorrelated noise: its covariances in time, and that it telescopes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras._core import gaussian

from specs import SHARED_DRAW, spec

SPECS = [
    spec(
        ox.add_anticorrelated_noise,
        supports={"random", "complex"},
        temporaries=SHARED_DRAW,
        stddev=0.1,
        schedules=("stddev",),
    ),
    spec(
        ox.anti_pgd,
        supports={"random", "complex", "descent"},
        changes={"formula", "state", "consumers"},
        learning_rate=0.1,
        stddev=0.01,
        schedules=("learning_rate", "stddev"),
        expected_failures={
            "learning_rate_of_zero_does_nothing": (
                "the paper's noise is not scaled by the rate"
            )
        },
    ),
]


def added(stddev, size, steps, **options):
    """What is added at each step; (steps, size)."""
    tx = ox.add_anticorrelated_noise(stddev, key=3, **options)
    zeros = jnp.zeros(size)

    def body(state, _):
        updates, state = tx.update(zeros, state)
        return state, updates

    return np.asarray(jax.lax.scan(body, tx.init(zeros), length=steps)[1], np.float64)


def draw(step, tree):
    return gaussian.gaussian_like(
        jnp.uint32([0, 3]), jnp.int32(step), tree, stream="add_anticorrelated_noise"
    )


@pytest.mark.parametrize("stddev", [0.1, lambda t: 0.5 / (1 + t)])
def test_oracle(stddev):
    rng = np.random.default_rng(0)
    tx = ox.add_anticorrelated_noise(stddev, key=3)
    state = tx.init(None)
    for t in range(25):
        u = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=2)}
        updates, state = tx.update(jax.tree.map(jnp.float32, u), state)
        before, after = (
            (stddev(s) if callable(stddev) else stddev) for s in (t, t + 1)
        )
        z, z_next = draw(t, u), draw(t + 1, u)
        for name in u:
            noise = after * np.float64(z_next[name]) - before * np.float64(z[name])
            np.testing.assert_allclose(
                updates[name], u[name] + noise, rtol=1e-6, atol=1e-6
            )
    assert int(state.count) == 25


def test_covariances_in_time():
    z = added(0.3, 10**5, 6) / 0.3
    # The variance of a product of two jointly Gaussian z is c₁c₂ + c₁₂², at most 8.
    error = 5.5 * np.sqrt(8 / z.shape[1])
    np.testing.assert_allclose(
        z @ z.T / z.shape[1],
        2 * np.eye(6) - np.eye(6, k=1) - np.eye(6, k=-1),
        atol=error,
    )


def test_sums_telescope():
    z = added(1.0, 1000, 50)
    np.testing.assert_allclose(
        z.sum(axis=0), draw(50, jnp.zeros(1000)) - draw(0, jnp.zeros(1000)), atol=1e-4
    )
    np.testing.assert_allclose(
        added(lambda t: 1.0 * (t < 20), 1000, 50).sum(axis=0),
        -np.asarray(draw(0, jnp.zeros(1000))),
        atol=1e-4,
    )


def test_it_stops_with_the_count():
    tx = ox.add_anticorrelated_noise(1.0, key=3)
    zeros = {"a": jnp.zeros(5), "b": jnp.zeros(5)}
    state = tx.init(zeros)._replace(count=jnp.int32(2**31 - 1))
    updates, _ = tx.update(zeros, state)
    np.testing.assert_array_equal(updates["a"], zeros["a"])


def test_half_precision_rounds_once():
    z32 = added(1.0, 1000, 1)[0]
    tx = ox.add_anticorrelated_noise(1.0, key=3)
    zeros = jnp.zeros(1000, jnp.bfloat16)
    updates, _ = tx.update(zeros, tx.init(zeros))
    np.testing.assert_array_equal(updates, jnp.asarray(z32, jnp.bfloat16))


def test_stddev_of_zero_is_the_identity():
    g = jax.random.normal(jax.random.key(0), (100,))
    tx = ox.add_anticorrelated_noise(0.0, key=0)
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], g)


def test_anti_pgd_is_the_chain():
    tx = ox.anti_pgd(0.1, 0.2, key=1)
    chain = optax.chain(optax.sgd(0.1), ox.add_anticorrelated_noise(0.2, key=1))
    params = {"w": jnp.ones(4)}
    state, other = tx.init(params), chain.init(params)
    for _ in range(20):
        updates, state = tx.update({"w": jnp.arange(4.0)}, state, params)
        expected, other = chain.update({"w": jnp.arange(4.0)}, other, params)
        np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-6, atol=1e-7)


def test_on_a_quadratic_the_parameters_stay_by_the_noiseless_path():
    # θ − ξ follows z ← z − h a (z + ξ), whose stationary variance is known.
    h, a, stddev = 0.1, 1.0, 0.1
    tx = ox.anti_pgd(h, stddev, key=0)

    def body(carry, _):
        params, state = carry
        updates, state = tx.update(a * params, state)
        return (optax.apply_updates(params, updates), state), None

    params = jnp.full(10**5, 3.0)
    carry = (params, tx.init(params))
    params = jax.jit(lambda c: jax.lax.scan(body, c, length=200)[0][0])(carry)
    # Var θ = σ² + Var z, as ξ is independent of the z of its step.
    variance = stddev**2 * (1 + (h * a) ** 2 / (1 - (1 - h * a) ** 2))
    error = 5.5 * np.sqrt(2 / params.size)
    assert abs(float(jnp.var(params)) / variance - 1) < error


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stddev": -0.1}, ValueError, "`stddev` must be finite and >= 0, got -0.1"),
        ({"stddev": "a"}, TypeError, "`stddev` must be a real number, got 'a'"),
        ({"key": None}, TypeError, "`key` must be an int, .*, got None"),
        ({"learning_rate": -1}, ValueError, "`learning_rate` must be finite and >= 0"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.anti_pgd(**{"learning_rate": 0.1, "stddev": 0.1, "key": 0, **arguments})
