"""SRSGD against the paper's two sequences, and against Nesterov's method."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox

from specs import spec

REAL = {"complex", "complex_as_real"}
SRSGD = {
    "learning_rate": 0.1,
    "schedules": ("learning_rate",),
    "supports": REAL | {"descent"},
    "buffers": 1,
}
SPECS = [
    spec(ox.srsgd, **SRSGD),
    spec(
        ox.srsgd,
        "often",
        **SRSGD,
        static={"restart_every": 3, "accumulator_dtype": jnp.float32},
        changes={"formula", "state"},
    ),
]

STEPS = 40
RNG = np.random.default_rng(0)
HESSIAN = np.diag([1.0, 5.0, 20.0]) + 0.1
START = RNG.normal(size=3)


def falling(t):
    return 0.02 / (1 + 0.1 * t)


def at(value, t):
    return value(t) if callable(value) else value


def oracle(rate, restart_every):
    """The paper's equations in float64, with its points v; F is constant."""
    w, v, path = START, START, []
    for k in range(STEPS):
        v_next = w - at(rate, k) * HESSIAN @ w
        j = k % restart_every
        w = v_next + j / (j + 3) * (v_next - v)
        v = v_next
        path.append(w)
    return np.stack(path)


def path_of(tx, dtype=jnp.float32):
    """Parameters after every step; a function of traced hyperparameters too."""
    start = jnp.asarray(START, dtype)

    def step(carry, _):
        params, state = carry
        grads = jnp.asarray(HESSIAN, dtype) @ params
        updates, state = tx.update(grads, state)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (start, tx.init(start)), length=STEPS)[1]


@pytest.mark.parametrize("restart_every", [1, 2, 3, 7, STEPS])
@pytest.mark.parametrize("rate", [0.02, falling])
def test_oracle(rate, restart_every):
    actual = path_of(ox.srsgd(rate, restart_every))
    np.testing.assert_allclose(actual, oracle(rate, restart_every), 1e-4, 1e-5)


def test_oracle_in_double_precision(x64):
    actual = path_of(ox.srsgd(0.02, 7), jnp.float64)
    np.testing.assert_allclose(actual, oracle(0.02, 7), rtol=1e-12)


def test_before_the_first_restart_it_is_nesterov(x64):
    """Its parameters are look-ahead points, with the momentum (k − 1) / (k + 2)."""
    tx = ox.nesterov_lookahead(
        0.02, lambda t: jnp.maximum(t - 1, 0) / (t + 2).astype(float)
    )
    params = jnp.asarray(START)
    state, points = tx.init(params), []
    for _ in range(STEPS):
        point = ox.nesterov_lookahead_params(state, params)
        updates, state = tx.update(jnp.asarray(HESSIAN) @ point, state)
        params = optax.apply_updates(params, updates)
        points.append(ox.nesterov_lookahead_params(state, params))
    actual = path_of(ox.srsgd(0.02, STEPS + 1), jnp.float64)
    np.testing.assert_allclose(actual, points, rtol=1e-12)


def test_restarts_at_every_step_are_sgd():
    expected = path_of(optax.sgd(0.02))
    np.testing.assert_allclose(path_of(ox.srsgd(0.02, 1)), expected, 1e-5)


def test_after_a_restart_nothing_of_the_past_is_left():
    tx = ox.srsgd(0.02, 4)
    params = jnp.asarray(START, jnp.float32)
    state, fresh = tx.init(params), None
    for step in range(12):
        if step == 4:
            fresh = tx.init(params)
        updates, state = tx.update(jnp.sin(step + params), state)
        if fresh is not None:
            other, fresh = tx.update(jnp.sin(step + params), fresh)
            np.testing.assert_array_equal(updates, other)
            np.testing.assert_array_equal(state.velocity, fresh.velocity)
        params = optax.apply_updates(params, updates)


def test_the_period_may_change_during_training():
    """Steps since the restart count on where it changes."""

    def restarts(period):
        tx = ox.srsgd(0.02, period)
        state = tx.init(jnp.ones(3))
        step = lambda state, _: (  # noqa: E731
            tx.update(jnp.ones(3), state)[1],
            state.since_restart,
        )
        found = jax.lax.scan(step, state, length=20)[1]
        return np.flatnonzero(found == 0).tolist()

    assert restarts(5) == [0, 5, 10, 15]
    grown = optax.piecewise_constant_schedule(3, {7: 2})
    assert [int(grown(t)) for t in (6, 7, 8)] == [3, 6, 6]
    assert restarts(grown) == [0, 3, 6, 12, 18]
    shrunk = optax.piecewise_constant_schedule(8, {5: 0.5})
    assert restarts(shrunk) == [0, 6, 10, 14, 18]


def test_every_hyperparameter_is_mapped():
    rates, periods = jnp.array([0.01, 0.02, 0.03]), jnp.array([1, 5, 30])
    together = jax.vmap(lambda *values: path_of(ox.srsgd(*values)))(rates, periods)
    for row, rate, period in zip(together, rates, periods, strict=True):
        alone = path_of(ox.srsgd(float(rate), int(period)))
        np.testing.assert_allclose(row, alone, 1e-5, 1e-6)


def test_restarts_beat_steady_growth_of_momentum():
    """On a strongly convex quadratic, Nesterov's momentum overshoots in the end."""
    curvature = jnp.logspace(-2, 0, 10)

    def loss(tx):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(curvature * params, state)
            return (optax.apply_updates(params, updates), state), None

        start = jnp.ones(10)
        params, _ = jax.lax.scan(step, (start, tx.init(start)), length=400)[0]
        return jnp.sum(curvature * params**2)

    assert loss(ox.srsgd(0.9, 40)) < loss(ox.srsgd(0.9, 1000)) / 1e3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"restart_every": 0}, ValueError, "`restart_every` must be >= 1 and .* got 0"),
        ({"restart_every": 2.5}, TypeError, "`restart_every` must be an integer, got"),
        ({"restart_every": None}, TypeError, "`restart_every` must be an integer, got"),
        ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be finite and >="),
        ({"accumulator_dtype": int}, TypeError, "must be a floating-point dtype"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.srsgd(**{"learning_rate": 0.1, **arguments})
