"""Quasi-hyperbolic momentum against its formula, and against what it reduces to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox

from decays import GRADIENTS, STEPS, at, rising
from specs import spec

REAL = {"complex", "complex_as_real"}
QHM = {"nu": 0.7, "supports": REAL, "buffers": 1}
SPECS = [
    spec(
        ox.scale_by_quasi_hyperbolic_momentum,
        decay=0.9,
        schedules=("decay", "nu"),
        **QHM,
    ),
    spec(
        ox.scale_by_quasi_hyperbolic_momentum,
        "float32-accumulator",
        decay=0.9,
        schedules=("decay", "nu"),
        **QHM,
        static={"accumulator_dtype": jnp.float32},
        changes={"formula", "state"},
    ),
    spec(
        ox.qhm,
        learning_rate=0.1,
        momentum=0.9,
        schedules=("learning_rate", "momentum", "nu"),
        **{**QHM, "supports": REAL | {"descent"}},
        changes={"formula", "state"},
    ),
]


def falling(t):
    return 0.9 / (1 + t / 10)


def oracle(decay, nu):
    """The paper's equations in float64: every direction."""
    m, outputs = np.zeros(5), []
    for t, g in enumerate(GRADIENTS):
        beta, share = at(decay, t), at(nu, t)
        m = beta * m + (1 - beta) * g
        outputs.append((1 - share) * g + share * m)
    return np.stack(outputs)


def updates_of(tx, dtype=jnp.float32):
    """Updates of all steps; a function of traced hyperparameters too."""
    _, outputs = jax.lax.scan(
        lambda state, g: tx.update(g, state)[::-1],
        tx.init(jnp.ones(5, dtype)),
        jnp.asarray(GRADIENTS, dtype),
    )
    return outputs


@pytest.mark.parametrize("nu", [0.0, 0.7, 1.0, falling])
@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, rising])
def test_oracle(decay, nu):
    tx = ox.scale_by_quasi_hyperbolic_momentum(decay, nu)
    np.testing.assert_allclose(updates_of(tx), oracle(decay, nu), 1e-5, 1e-6)


def test_oracle_in_double_precision(x64):
    tx = ox.scale_by_quasi_hyperbolic_momentum(0.999, 0.7)
    actual = updates_of(tx, jnp.float64)
    np.testing.assert_allclose(actual, oracle(0.999, 0.7), rtol=1e-12)


def test_the_learning_rate_is_outside():
    rates = np.array([falling(t) for t in range(STEPS)])[:, None]
    actual = updates_of(ox.qhm(falling, rising, 0.7))
    np.testing.assert_allclose(actual, -rates * oracle(rising, 0.7), 1e-5, 1e-6)


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
def test_nu_equal_to_the_decay_is_nesterov(momentum):
    tx = ox.qhm(0.1 / (1 - momentum), momentum, nu=momentum)
    expected = updates_of(optax.sgd(0.1, momentum, nesterov=True))
    np.testing.assert_allclose(updates_of(tx), expected, 2e-5, 2e-6)


def test_no_nu_is_sgd():
    expected = updates_of(optax.sgd(falling))
    np.testing.assert_allclose(updates_of(ox.qhm(falling, 0.9, 0.0)), expected, 1e-6)


def test_nu_of_one_is_damped_momentum():
    damped = updates_of(ox.scale_by_quasi_hyperbolic_momentum(0.9, 1.0))
    expected = updates_of(optax.ema(0.9, debias=False))
    np.testing.assert_allclose(damped, expected, 1e-5, 1e-6)
    plain = updates_of(optax.sgd(0.1, 0.9))
    np.testing.assert_allclose(updates_of(ox.qhm(1.0, 0.9, 1.0)), plain, 1e-5, 1e-6)


def test_a_multiple_amplifies_slow_gradients_as_grokfast_does():
    alpha, amplification = 0.98, 2.0
    slow, expected = np.zeros(5), []
    for g in GRADIENTS:
        slow = alpha * slow + (1 - alpha) * g
        expected.append(g + amplification * slow)
    nu = amplification / (1 + amplification)
    tx = optax.chain(
        ox.scale_by_quasi_hyperbolic_momentum(alpha, nu), optax.scale(1 + amplification)
    )
    np.testing.assert_allclose(updates_of(tx), expected, 1e-5, 1e-6)


def test_with_the_default_decay_first_steps_are_a_share_of_those_of_sgd():
    first, *_, last = updates_of(ox.scale_by_quasi_hyperbolic_momentum())
    np.testing.assert_allclose(first, 0.3007 * GRADIENTS[0], 1e-5)
    assert np.abs(last - 0.3 * GRADIENTS[-1]).max() < 0.02
    np.testing.assert_allclose(updates_of(ox.qhm(0.1))[0], -0.1 * first, 1e-6)


def test_every_hyperparameter_is_mapped():
    rates, decays, nus = np.float32([[0.1, 0.2, 0.3], [0, 0.5, 0.9], [1, 0, 0.7]])
    together = jax.vmap(lambda *values: updates_of(ox.qhm(*values)))(rates, decays, nus)
    for row, *values in zip(together, rates, decays, nus, strict=True):
        alone = updates_of(ox.qhm(*map(float, values)))
        np.testing.assert_allclose(row, alone, 1e-5, 1e-7)


def test_half_precision_needs_a_wider_average_for_a_decay_near_one():
    def average(**options):
        tx = ox.scale_by_quasi_hyperbolic_momentum(0.999, **options)
        state = tx.init(jnp.zeros((), jnp.bfloat16))
        one = jnp.ones((), jnp.bfloat16)
        step = lambda state, _: (tx.update(one, state)[1], None)  # noqa: E731
        return jax.lax.scan(step, state, length=2000)[0].average

    assert average() < 0.5
    expected = 1 - 0.999**2000
    wide = average(accumulator_dtype=jnp.float32)
    np.testing.assert_allclose(wide, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"momentum": 1.0}, ValueError, r"`momentum` must be in \[0, 1\).*, got 1.0"),
        ({"nu": 1.5}, ValueError, r"`nu` must be in \[0, 1\], got 1.5"),
        ({"nu": -0.1}, ValueError, r"`nu` must be in \[0, 1\], got -0.1"),
        ({"nu": "0.7"}, TypeError, "`nu` must be a real number, got '0.7'"),
        ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be finite and >="),
        ({"accumulator_dtype": int}, TypeError, "must be a floating-point dtype"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.qhm(**{"learning_rate": 0.1, **arguments})


def test_bad_decay():
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\).*, got 2"):
        ox.scale_by_quasi_hyperbolic_momentum(2)
