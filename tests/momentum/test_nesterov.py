"""The look-ahead form of Nesterov's momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox

from specs import spec

SPECS = [
    spec(
        ox.nesterov_lookahead,
        learning_rate=0.1,
        momentum=0.9,
        schedules=("learning_rate", "momentum"),
        supports={"complex", "complex_as_real", "descent"},
        gradient_params=ox.nesterov_lookahead_params,
        buffers=1,
    )
]

STEPS = 30
RNG = np.random.default_rng(0)
HESSIAN = np.diag([1.0, 5.0, 20.0]) + 0.1
START = RNG.normal(size=3)


def loss(theta):
    return 0.5 * theta @ jnp.asarray(HESSIAN, theta.dtype) @ theta


def rate_schedule(t):
    return 0.02 / (1 + 0.1 * t)


def at(value, t):
    return value(t) if callable(value) else value


def train(tx, dtype=jnp.float32):
    """Parameters and look-ahead points of every step."""
    params = jnp.asarray(START, dtype)
    state, path, points = tx.init(params), [], []
    for _ in range(STEPS):
        point = ox.nesterov_lookahead_params(state, params)
        updates, state = tx.update(jax.grad(loss)(point), state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
        points.append(point)
    return np.stack(path), np.stack(points)


@pytest.mark.parametrize("rate", [0.02, rate_schedule])
@pytest.mark.parametrize("momentum", [0.0, 0.9, ox.sutskever_momentum(0.99, 5)])
def test_source_recursion_step_by_step(rate, momentum):
    theta, v, path = START, np.zeros(3), []
    for t in range(STEPS):
        gamma = np.float64(at(momentum, t))
        v = gamma * v + at(rate, t) * HESSIAN @ (theta - gamma * v)
        theta = theta - v
        path.append(theta)
    actual, _ = train(ox.nesterov_lookahead(rate, momentum))
    np.testing.assert_allclose(actual, path, rtol=1e-4, atol=1e-5)


def test_source_recursion_in_double_precision(x64):
    theta, v = START, np.zeros(3)
    for _ in range(STEPS):
        v = 0.9 * v + 0.02 * HESSIAN @ (theta - 0.9 * v)
        theta = theta - v
    actual, _ = train(ox.nesterov_lookahead(0.02, 0.9), jnp.float64)
    np.testing.assert_allclose(actual[-1], theta, rtol=1e-12)


def test_look_ahead_points_are_the_iterates_of_optax_nesterov():
    tx = optax.sgd(0.02, 0.9, nesterov=True)
    params = jnp.asarray(START, jnp.float32)
    state, path = tx.init(params), []
    for _ in range(STEPS):
        path.append(params)
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    _, points = train(ox.nesterov_lookahead(0.02, 0.9))
    np.testing.assert_allclose(points, path, rtol=1e-4, atol=1e-5)


def test_no_momentum_is_sgd():
    actual, points = train(ox.nesterov_lookahead(0.02, 0.0))
    theta = START
    for step, point in zip(actual, points, strict=True):
        np.testing.assert_allclose(point, theta, rtol=1e-5, atol=1e-6)
        theta = theta - 0.02 * HESSIAN @ theta
        np.testing.assert_allclose(step, theta, rtol=1e-5, atol=1e-6)


def after_one_step(tx, params):
    grads = jax.tree.map(jnp.ones_like, params)
    return tx.update(grads, tx.init(params), params)[1]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.chain(optax.identity(), tx),
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.MultiSteps(tx, 1),
    ],
)
def test_state_is_found_inside_wrappers(wrap):
    params = {"a": jnp.zeros(2)}
    state = after_one_step(wrap(ox.nesterov_lookahead(1.0, 0.5)), params)
    point = jax.jit(ox.nesterov_lookahead_params)(state, params)
    np.testing.assert_allclose(point["a"], [-0.5, -0.5])


def test_injected_momentum_takes_effect_at_the_next_point():
    tx = optax.inject_hyperparams(ox.nesterov_lookahead)(1.0, momentum=0.5)
    params = jnp.zeros(2)
    state = after_one_step(tx, params)
    state.hyperparams["momentum"] = jnp.float32(0.25)
    np.testing.assert_allclose(ox.nesterov_lookahead_params(state, params), -0.5)
    updates, state = tx.update(jnp.zeros(2), state, params)
    np.testing.assert_allclose(updates, -0.5)
    np.testing.assert_allclose(ox.nesterov_lookahead_params(state, params), -0.125)


def test_masked_leaves_stay():
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(2), "d": None}}
    tx = optax.masked(ox.nesterov_lookahead(1.0, 0.5), {"a": True, "b": False})
    point = ox.nesterov_lookahead_params(after_one_step(tx, params), params)
    np.testing.assert_allclose(point["a"], [0.5, 0.5])
    np.testing.assert_array_equal(point["b"]["c"], params["b"]["c"])


def test_partition_moves_each_group():
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    tx = optax.partition(
        {"x": ox.nesterov_lookahead(1.0, 0.5), "y": ox.nesterov_lookahead(1.0, 0.25)},
        {"a": "x", "b": "y"},
    )
    point = ox.nesterov_lookahead_params(after_one_step(tx, params), params)
    np.testing.assert_allclose((point["a"], point["b"]), [[-0.5], [-0.25]])


def test_points_keep_the_dtype():
    params = {"h": jnp.ones(2, jnp.bfloat16), "c": jnp.ones(2, jnp.complex64)}
    tx = ox.nesterov_lookahead(0.1, accumulator_dtype=jnp.float32)
    point = ox.nesterov_lookahead_params(after_one_step(tx, params), params)
    assert (point["h"].dtype, point["c"].dtype) == (jnp.bfloat16, jnp.complex64)


def test_params_that_do_not_fit_are_refused():
    state = after_one_step(ox.nesterov_lookahead(0.1), {"a": jnp.ones(2)})
    for params in ({"b": jnp.ones(2)}, {"a": jnp.ones((3, 1))}, [jnp.ones(2)]):
        with pytest.raises(ValueError, match="`params` must have the structure and sh"):
            ox.nesterov_lookahead_params(state, params)


def test_a_state_of_something_else_is_refused():
    with pytest.raises(ValueError, match="must hold the state of `nesterov_lookahead`"):
        ox.nesterov_lookahead_params(optax.adam(0.1).init(jnp.zeros(2)), jnp.zeros(2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be finite and >="),
        ({"momentum": 1.5}, ValueError, r"`momentum` must be in \[0, 1\).*, got 1.5"),
        ({"accumulator_dtype": int}, TypeError, "must be a floating-point dtype"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.nesterov_lookahead(**{"learning_rate": 0.1, **arguments})
