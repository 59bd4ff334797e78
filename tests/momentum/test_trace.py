"""Momentum against its formulas in float64, and against what it reduces to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

import optax_extras as ox
from optax_extras._core import gaussian

from decays import GRADIENTS, STEPS, at, rising
from specs import spec

REAL = {"complex", "complex_as_real"}
TRACE = {"decay": 0.9, "schedules": ("decay",), "buffers": 1}
SGD = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "schedules": ("learning_rate", "momentum"),
    "supports": REAL | {"descent"},
    "buffers": 1,
}
SPECS = [
    spec(ox.trace_with_bias_correction, **TRACE, supports=REAL),
    spec(
        ox.trace_with_bias_correction,
        "nesterov",
        **TRACE,
        supports=REAL,
        changes={"formula"},
        static={"nesterov": True},
    ),
    spec(
        ox.trace_with_bias_correction,
        "plain",
        **TRACE,
        supports=REAL,
        changes={"formula"},
        static={"bias_correction": False},
    ),
    spec(
        ox.trace_with_bias_correction,
        "random-start",
        **TRACE,
        supports={"random", "complex"},
        changes={"state", "draws"},
        static={"initial_scale": 0.1},
        expected_failures={
            "steps_draw_differently": "it draws once, for the initial trace"
        },
    ),
    spec(
        ox.trace_with_bias_correction,
        "float32-accumulator",
        **TRACE,
        supports=REAL,
        changes={"formula", "state"},
        static={"accumulator_dtype": jnp.float32},
    ),
    spec(ox.momentum_sgd, **SGD),
    spec(
        ox.momentum_sgd,
        "nesterov-corrected",
        **SGD,
        changes={"formula"},
        static={"nesterov": True, "bias_correction": True},
    ),
    spec(
        ox.momentum_sgd,
        "rate-outside",
        **SGD,
        changes={"formula", "state"},
        static={"learning_rate_inside": False},
    ),
]


def falling(t):
    return 0.2 / (1 + t)


def oracle_trace(decay, nesterov, bias_correction, start=0.0):
    """SPEC of the trace in float64: every update."""
    m, w, outputs = np.zeros(5) + start, 0.0, []
    for t, g in enumerate(GRADIENTS):
        gamma = at(decay, t)
        m, w = g + gamma * m, 1 + gamma * w
        u, gain = (g + gamma * m, 1 + gamma * w) if nesterov else (m, w)
        outputs.append(u / (gain * (1 - gamma)) if bias_correction else u)
    return np.stack(outputs)


def oracle_velocity(rate, decay, nesterov, inside):
    """The parameters of v = γv + η∇, θ ← θ − v, or with the rate outside."""
    theta, v, path = np.ones(5), np.zeros(5), []
    for t, g in enumerate(GRADIENTS):
        eta, gamma = at(rate, t), at(decay, t)
        term = eta * g if inside else g
        v = gamma * v + term
        step = term + gamma * v if nesterov else v
        theta = theta - (step if inside else eta * step)
        path.append(theta)
    return np.stack(path)


def updates_of(tx, gradients=GRADIENTS, dtype=jnp.float32):
    params = jnp.ones(gradients.shape[1:], dtype)
    _, outputs = jax.lax.scan(
        lambda state, g: tx.update(g, state)[::-1],
        tx.init(params),
        jnp.asarray(gradients, dtype),
    )
    return np.asarray(outputs)


def path_of(tx):
    return 1 + np.cumsum(updates_of(tx).astype(np.float64), axis=0)


@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.99, rising])
def test_oracle(decay, nesterov, bias_correction):
    tx = ox.trace_with_bias_correction(decay, nesterov, bias_correction=bias_correction)
    expected = oracle_trace(decay, nesterov, bias_correction)
    np.testing.assert_allclose(updates_of(tx), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay", [0.9, lambda t: rising(np.float64(1) * t)])
def test_oracle_in_double_precision(decay, x64):
    tx = ox.trace_with_bias_correction(decay)
    assert tx.init(jnp.ones(5)).weight.dtype == jnp.float64
    expected = oracle_trace(decay, False, True)
    actual = updates_of(tx, dtype=jnp.float64)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(
    "decay", [0.0, 0.5, 0.9, rising, ox.sutskever_momentum(0.99, 5)]
)
def test_constant_gradients_have_the_full_gain_from_step_one(decay, nesterov):
    tx = ox.trace_with_bias_correction(decay, nesterov)
    g = np.array([1.0, -3.0])
    for t, update in enumerate(updates_of(tx, np.tile(g, (STEPS, 1)))):
        np.testing.assert_allclose(update, g / (1 - at(decay, t)), rtol=5e-6)


def test_constant_decay_divides_by_one_minus_its_power():
    plain = updates_of(ox.trace_with_bias_correction(0.9, bias_correction=False))
    powers = 1 - 0.9 ** np.arange(1, STEPS + 1)[:, None]
    corrected = updates_of(ox.trace_with_bias_correction(0.9))
    np.testing.assert_allclose(corrected, plain / powers, rtol=1e-5)


def test_relation_to_optax_trace_and_ema():
    plain = ox.trace_with_bias_correction(0.9, bias_correction=False)
    np.testing.assert_array_equal(updates_of(plain), updates_of(optax.trace(0.9)))
    nesterov = ox.trace_with_bias_correction(0.9, True, bias_correction=False)
    np.testing.assert_allclose(
        updates_of(nesterov), updates_of(optax.trace(0.9, True)), rtol=1e-6
    )
    corrected = updates_of(ox.trace_with_bias_correction(0.9))
    ema = updates_of(optax.ema(0.9, debias=True))
    np.testing.assert_allclose(corrected * (1 - 0.9), ema, rtol=1e-5)


def test_random_start_is_gaussian_and_decays():
    tx = ox.trace_with_bias_correction(0.9, initial_scale=0.1, key=3)
    params = {"w": jnp.zeros(10_000), "b": jnp.zeros(10_000)}
    start = tx.init(params).trace
    for leaf in start.values():
        assert abs(np.std(leaf) / 0.1 - 1) < 5.5 / np.sqrt(20_000)
    assert abs(np.corrcoef(start["w"], start["b"])[0, 1]) < 0.055
    noise = ox.add_decayed_noise(1.0, key=3).update(params, tx_state(3, params))[0]
    assert abs(np.corrcoef(start["w"], noise["w"])[0, 1]) < 0.055
    small = tx.init(jnp.zeros(5)).trace
    expected = oracle_trace(0.9, False, True, np.asarray(small, np.float64))
    np.testing.assert_allclose(updates_of(tx), expected, rtol=1e-5, atol=1e-5)


def tx_state(key, params):
    return ox.add_decayed_noise(1.0, key=key).init(params)


def test_random_start_has_float32_resolution_in_half_precision():
    z = gaussian.gaussian_like(
        jnp.uint32([0, 3]), jnp.int32(0), jnp.zeros(10), stream="initial_momentum"
    )
    tx = ox.trace_with_bias_correction(initial_scale=1.0, key=3)
    start = tx.init(jnp.zeros(10, jnp.bfloat16)).trace
    np.testing.assert_array_equal(start, z.astype(jnp.bfloat16))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("rate", "decay"), [(0.1, 0.9), (falling, 0.9), (0.1, rising)])
def test_velocity_oracle(rate, decay, inside, nesterov):
    tx = ox.momentum_sgd(rate, decay, nesterov=nesterov, learning_rate_inside=inside)
    expected = oracle_velocity(rate, decay, nesterov, inside)
    np.testing.assert_allclose(path_of(tx), expected, rtol=1e-5, atol=1e-5)


def test_where_the_learning_rate_stands_matters_once_it_changes():
    inside = path_of(ox.momentum_sgd(falling, 0.9))
    outside = path_of(ox.momentum_sgd(falling, 0.9, learning_rate_inside=False))
    np.testing.assert_allclose(inside[0], outside[0], rtol=1e-6)
    assert np.abs(inside - outside).max() > 0.1


@pytest.mark.parametrize("nesterov", [True, False])
def test_rate_outside_is_optax_sgd(nesterov):
    tx = ox.momentum_sgd(falling, 0.9, nesterov=nesterov, learning_rate_inside=False)
    expected = path_of(optax.sgd(falling, 0.9, nesterov))
    np.testing.assert_allclose(path_of(tx), expected, rtol=1e-5)


def test_the_other_sign_is_the_same_method():
    theta, v, path = np.ones(5), np.zeros(5), []
    for t, g in enumerate(GRADIENTS):
        v = 0.9 * v - falling(t) * g
        theta = theta + v
        path.append(theta)
    np.testing.assert_allclose(
        path_of(ox.momentum_sgd(falling, 0.9)), path, rtol=1e-5, atol=1e-5
    )


def test_no_momentum_is_sgd():
    expected = path_of(optax.sgd(falling))
    for inside in (True, False):
        tx = ox.momentum_sgd(falling, 0.0, learning_rate_inside=inside)
        np.testing.assert_allclose(path_of(tx), expected, rtol=1e-6)
    corrected = ox.momentum_sgd(falling, 0.0, bias_correction=True)
    np.testing.assert_allclose(path_of(corrected), expected, rtol=1e-6)


def test_first_corrected_step_is_the_gain_times_sgd():
    corrected = updates_of(ox.momentum_sgd(0.1, 0.9, bias_correction=True))
    np.testing.assert_allclose(corrected[0], updates_of(optax.sgd(0.1))[0] * 10, 1e-5)


def test_momentum_accelerates_an_ill_conditioned_valley():
    curvature = jnp.array([1.0, 100.0])

    def final(tx):
        def body(carry, _):
            params, state = carry
            updates, state = tx.update(curvature * params, state)
            return (optax.apply_updates(params, updates), state), None

        start = jnp.ones(2)
        return jax.lax.scan(body, (start, tx.init(start)), length=200)[0][0]

    plain = float(jnp.abs(final(optax.sgd(0.01))).max())
    assert float(jnp.abs(final(ox.momentum_sgd(0.01, 0.9))).max()) < plain / 100


def test_accumulator_dtype():
    params = {"r": jnp.ones(2, jnp.bfloat16), "c": jnp.ones(2, jnp.complex64)}
    tx = ox.trace_with_bias_correction(accumulator_dtype=jnp.float32)
    trace = tx.init(params).trace
    assert (trace["r"].dtype, trace["c"].dtype) == (jnp.float32, jnp.complex64)
    half = ox.trace_with_bias_correction(accumulator_dtype="bfloat16")
    assert half.init(jnp.ones(2)).trace.dtype == jnp.bfloat16


def test_a_small_rate_inside_is_not_lost_in_half_precision():
    options = {"momentum": 0.99, "accumulator_dtype": jnp.float32}
    tx = ox.momentum_sgd(1e-5, **options)
    params = jnp.zeros((), jnp.float16)
    state = tx.init(params)
    for _ in range(500):
        updates, state = jax.jit(tx.update)(jnp.float16(1e-3), state)
    expected = -1e-5 * np.float64(np.float16(1e-3)) * (1 - 0.99**500) / 0.01
    np.testing.assert_allclose(state.trace, expected, rtol=1e-4)
    np.testing.assert_allclose(updates, expected, rtol=0.05)  # a float16 subnormal


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    dtype=st.sampled_from((np.float16, jnp.bfloat16, np.float32)),
    decays=st.lists(st.floats(0, 0.99), min_size=5, max_size=5),
    nesterov=st.booleans(),
    bias_correction=st.booleans(),
)
def test_oracle_anywhere(shape, dtype, decays, nesterov, bias_correction):
    rng = np.random.default_rng(1)
    tx = ox.trace_with_bias_correction(
        lambda t: jnp.asarray(decays)[t],
        nesterov,
        jnp.float32,
        bias_correction=bias_correction,
    )
    state = tx.init(jnp.zeros(shape, dtype))
    m, w = np.zeros(shape), 0.0
    for gamma in decays:
        gradient = jnp.asarray(rng.normal(size=shape), dtype)
        updates, state = tx.update(gradient, state)
        g = np.asarray(gradient, np.float64)
        m, w = g + gamma * m, 1 + gamma * w
        u, gain = (g + gamma * m, 1 + gamma * w) if nesterov else (m, w)
        expected = u / (gain * (1 - gamma)) if bias_correction else u
        tolerance = max(1e-5, float(jnp.finfo(dtype).eps))
        np.testing.assert_allclose(
            np.asarray(updates, np.float64), expected, tolerance, tolerance
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"decay": 1.0}, ValueError, r"`decay` must be in \[0, 1\).*, got 1.0"),
        ({"decay": -0.1}, ValueError, r"`decay` must be in \[0, 1\).*, got -0.1"),
        ({"decay": 1 - 1e-12}, ValueError, "after rounding to float32"),
        ({"decay": 1e300}, ValueError, r"`decay` must be in \[0, 1\).*, got 1e\+300"),
        ({"decay": 10**400}, ValueError, r"`decay` must be in \[0, 1\).*, got 1000"),
        ({"decay": None}, TypeError, "`decay` must be a real number, got None"),
        ({"decay": True}, TypeError, "`decay` must be a real number, got True"),
        ({"decay": jnp.bfloat16(0.5)}, TypeError, "hyperparam_dtype=jnp.float32"),
        ({"nesterov": 1}, TypeError, "`nesterov` must be True or False, got 1"),
        ({"bias_correction": None}, TypeError, "`bias_correction` must be True or"),
        ({"accumulator_dtype": int}, TypeError, "must be a floating-point dtype"),
        ({"accumulator_dtype": "x"}, TypeError, "must be a dtype, got 'x'"),
        ({"accumulator_dtype": jnp.ones(())}, TypeError, "name it in `static_args`"),
        ({"initial_scale": 0.1}, ValueError, "initial_scale=0.1 and key=None"),
        ({"key": 0}, ValueError, "initial_scale=None and key=0"),
        ({"key": 0, "initial_scale": 0.0}, ValueError, "initial_scale=0.0 and key=0"),
        ({"key": 0, "initial_scale": -1}, ValueError, "`initial_scale` must be finite"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.trace_with_bias_correction(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be finite and >="),
        ({"learning_rate": None}, TypeError, "`learning_rate` must be a real number"),
        ({"momentum": 1}, ValueError, r"`momentum` must be in \[0, 1\)"),
        (
            {"learning_rate_inside": "yes"},
            TypeError,
            "must be True or False, got 'yes'",
        ),
    ],
)
def test_bad_arguments_of_momentum_sgd(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.momentum_sgd(**{"learning_rate": 0.1, **arguments})


def test_integer_parameters_are_refused_at_init():
    with pytest.raises(TypeError, match=r"`params` must have .* int32 at \['n'\]"):
        ox.trace_with_bias_correction().init({"n": jnp.zeros(3, jnp.int32)})


def test_parameters_that_were_none_are_named():
    tx = ox.trace_with_bias_correction()
    state = tx.init({"a": None})
    with pytest.raises(ValueError, match=r"`updates` must be None at \['a'\].*\(3,\)"):
        tx.update({"a": jnp.ones(3)}, state)


def test_eight_bit_leaves_are_refused():
    with pytest.raises(TypeError, match=r"16 bits or more, got dtype float8_e4m3fn"):
        ox.trace_with_bias_correction().init({"a": jnp.ones(3, jnp.float8_e4m3fn)})


def test_every_option_of_the_velocity_form_is_used():
    params = jnp.ones(2, jnp.bfloat16)
    for make in (ox.momentum_sgd, ox.nesterov_lookahead):
        state = make(0.1, accumulator_dtype=jnp.float32).init(params)
        dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(state)}
        assert dtypes == {"int32", "float32"}
