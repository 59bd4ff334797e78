"""Langevin dynamics: oracles, and the distributions the chains settle in."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special
from sklearn.datasets import load_breast_cancer

import optax_extras as ox
from optax_extras._core import gaussian

from specs import SHARED_DRAW, spec

LANGEVIN = {
    "supports": {"random", "complex"},
    "learning_rate": 0.1,
    "temperature": 0.5,
}
SCHEDULES = ("learning_rate", "temperature")
SPECS = [
    spec(
        ox.add_langevin_noise,
        **LANGEVIN,
        temporaries=SHARED_DRAW,
        schedules=SCHEDULES,
        expected_failures={
            "learning_rate_of_zero_does_nothing": (
                "it passes on what the stage before it made"
            )
        },
    ),
    spec(
        ox.sgld,
        **LANGEVIN,
        changes={"formula", "state"},
        schedules=SCHEDULES,
    ),
    spec(
        ox.psgld,
        **LANGEVIN,
        schedules=(*SCHEDULES, "decay"),
        buffers=1,
        decay=0.9,
        eps=1e-5,
    ),
]


def frozen_after_500(count):
    """A decay for psgld."""
    return jnp.where(count < 500, 0.99, 1.0)


def draw(step, tree):
    return gaussian.gaussian_like(
        jnp.uint32([0, 3]), jnp.int32(step), tree, stream="add_langevin_noise"
    )


def at(value, t):
    return value(t) if callable(value) else value


def settle(tx, gradient, params, steps):
    """Parameters and state after so many steps."""

    def body(carry, _):
        params, state = carry
        updates, state = tx.update(gradient(params), state)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(body, carry, length=steps)[0])
    return run((params, tx.init(params)))


def assert_moments(samples, mean, covariance):
    """Independent samples (n, d) against a mean and covariance, to Monte-Carlo error.

    The estimate of a covariance C_ij has the variance (C_ii C_jj + C_ij²) / n where the
    samples are Gaussian; a third more allows for a posterior that nearly is.
    """
    samples = np.asarray(samples, np.float64)
    n = len(samples)
    variances = np.diag(covariance)
    error = np.sqrt(variances / n)
    np.testing.assert_array_less(np.abs(samples.mean(axis=0) - mean), 5.5 * error)
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / n)
    np.testing.assert_array_less(np.abs(np.cov(samples.T) - covariance), 7 * error)


@pytest.mark.parametrize("rate", [0.1, lambda t: 0.1 / (1 + t)])
@pytest.mark.parametrize("temperature", [1.0, 0.01, lambda t: 0.5 * 0.9**t])
def test_oracle_of_sgld(rate, temperature):
    rng = np.random.default_rng(0)
    tx = ox.sgld(rate, temperature, key=3)
    params = {"w": jnp.zeros((3, 4)), "b": jnp.zeros(2)}
    state = tx.init(params)
    for t in range(25):
        g = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=2)}
        updates, state = tx.update(jax.tree.map(jnp.float32, g), state)
        h, z = at(rate, t), draw(t, params)
        for name in g:
            noise = np.sqrt(2 * h * at(temperature, t)) * np.float64(z[name])
            np.testing.assert_allclose(
                updates[name], -h * g[name] + noise, rtol=1e-6, atol=1e-6
            )


@pytest.mark.parametrize("decay", [0.9, lambda t: jnp.where(t < 10, 0.9, 1.0)])
@pytest.mark.parametrize("rate", [0.1, lambda t: 0.1 / (1 + t)])
def test_oracle_of_psgld(rate, decay):
    rng = np.random.default_rng(0)
    tx = ox.psgld(rate, 0.2, decay, 1e-3, key=3)
    params = {"w": jnp.zeros((3, 4)), "b": jnp.zeros(2)}
    state = tx.init(params)
    v = {"w": 0.0, "b": 0.0}
    for t in range(25):
        g = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=2)}
        updates, state = tx.update(jax.tree.map(jnp.float32, g), state)
        h, z, alpha = at(rate, t), draw(t, params), float(at(decay, t))
        for name in g:
            v[name] = alpha * v[name] + (1 - alpha) * g[name] ** 2
            scale = 1 / (1e-3 + np.sqrt(v[name]))
            noise = np.sqrt(2 * h * 0.2 * scale) * np.float64(z[name])
            np.testing.assert_allclose(
                updates[name], -h * scale * g[name] + noise, rtol=1e-5, atol=1e-5
            )
            np.testing.assert_allclose(state.nu[name], v[name], rtol=1e-5, atol=1e-6)
    assert int(state.count) == 25


def test_temperature_of_zero_is_descent():
    g = jax.random.normal(jax.random.key(0), (100,))
    tx, sgd = ox.sgld(0.1, 0.0, key=0), optax.sgd(0.1)
    np.testing.assert_array_equal(
        tx.update(g, tx.init(g))[0], sgd.update(g, sgd.init(g))[0]
    )
    tx, rms = (
        ox.psgld(0.1, 0.0, 0.99, 1e-5, key=0),
        optax.rmsprop(0.1, 0.99, 1e-5, eps_in_sqrt=False),
    )
    state, other = tx.init(g), rms.init(g)
    for _ in range(20):
        updates, state = tx.update(g, state)
        expected, other = rms.update(g, other)
        np.testing.assert_allclose(updates, expected, rtol=2e-4)


@pytest.mark.parametrize("make", [ox.sgld, ox.psgld])
def test_learning_rate_of_zero_does_nothing(make):
    tx = make(0.0, key=0)
    g = jnp.ones(5)
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], 0 * g)


MEAN = np.array([1.0, -2.0, 0.5])
COVARIANCE = np.array([[1.0, 0.6, 0.0], [0.6, 0.5, -0.1], [0.0, -0.1, 0.3]])
PRECISION = np.linalg.inv(COVARIANCE)


def gaussian_gradient(theta):
    """Of ½ (θ − μ)ᵀ Σ⁻¹ (θ − μ), for chains (n, 3)."""
    return (theta - jnp.float32(MEAN)[None]) @ jnp.float32(PRECISION)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_sgld_settles_in_a_gaussian(temperature):
    h = 0.01
    tx = ox.sgld(h, temperature, key=0)
    theta, _ = settle(tx, gaussian_gradient, jnp.zeros((50_000, 3)), 2000)
    # Exactly T Σ (1 − h Σ⁻¹ / 2)⁻¹ for a finite step.
    stretched = np.linalg.inv(np.eye(3) - h * PRECISION / 2)
    assert_moments(theta, MEAN, temperature * COVARIANCE @ stretched)


@pytest.mark.nightly
def test_psgld_settles_in_a_gaussian_once_its_scale_is_frozen():
    h = 0.01
    tx = ox.psgld(h, 1.0, frozen_after_500, key=0)
    theta, state = settle(tx, gaussian_gradient, jnp.zeros((50_000, 3)), 4000)
    # Each chain has its own G; in coordinates stretched by it the step is SGLD's.
    root = np.sqrt(1 / (1e-5 + np.sqrt(np.asarray(state.nu, np.float64))))
    precision = root[:, :, None] * PRECISION * root[:, None, :]
    stretched = np.linalg.inv(precision) @ np.linalg.inv(np.eye(3) - h * precision / 2)
    covariance = np.mean(root[:, :, None] * stretched * root[:, None, :], axis=0)
    assert_moments(theta, MEAN, covariance)
    assert (
        np.abs(covariance / np.where(COVARIANCE, COVARIANCE, 1) - 1)[
            COVARIANCE != 0
        ].max()
        < 0.05
    )


@pytest.mark.nightly
def test_bias_of_psgld_while_its_scale_moves():
    tx = ox.psgld(0.01, 1.0, key=0)
    theta, _ = settle(tx, lambda theta: theta, jnp.ones(50_000), 3000)
    assert 1.25 < float(jnp.var(theta)) < 1.4  # as the docstring says


def test_complex_parameters_are_two_real_ones():
    for tx in (ox.sgld(0.02, 0.5, key=0), ox.psgld(0.02, 0.5, frozen_after_500, key=0)):
        z, _ = settle(tx, lambda z: z, jnp.ones(50_000, jnp.complex64), 1500)
        for part in (z.real, z.imag):
            assert abs(float(jnp.var(part)) / 0.5 - 1) < 0.05


@pytest.fixture(scope="module")
def posterior():
    """A logistic regression with a Gaussian prior, and its posterior by quadrature."""
    data = load_breast_cancer()
    x = data.data[:200, [0, 1]]
    x = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)])
    y = 2.0 * data.target[:200] - 1

    def energy(theta):
        """The negative log-posterior, with a prior N(0, 1), of (n, 3) parameters."""
        margins = y * (theta @ x.T)
        return np.logaddexp(0, -margins).sum(axis=1) + 0.5 * (theta**2).sum(axis=1)

    axes = [np.linspace(-3, 3, 61), np.linspace(-7, 0, 61), np.linspace(-4, 2, 61)]
    grid = np.array(list(itertools.product(*axes)))
    weights = special.softmax(-energy(grid))
    edges = np.isclose(grid, [a[0] for a in axes]) | np.isclose(
        grid, [a[-1] for a in axes]
    )
    assert weights[edges.any(axis=1)].sum() < 1e-9
    mean = weights @ grid
    covariance = (grid - mean).T @ ((grid - mean) * weights[:, None])
    return x, y, mean, covariance


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgld", "psgld"])
@pytest.mark.parametrize("loss", ["sum", "mean"])
def test_samples_of_a_bayesian_logistic_regression(posterior, name, loss):
    x, y, mean, covariance = posterior
    n = len(y)
    scale = 1 if loss == "sum" else 1 / n
    xs, ys = jnp.float32(x), jnp.float32(y)

    def gradient(theta):
        weights = -ys[None] * jax.nn.sigmoid(-ys[None] * (theta @ xs.T))
        return scale * (weights @ xs + theta)

    if name == "sgld":
        tx = ox.sgld(0.0015 / scale, scale, key=0)
    else:  # its step is in units of the root of the squared gradient: the same for both
        tx = ox.psgld(0.01, scale, frozen_after_500, key=0)
    theta, _ = settle(tx, gradient, jnp.zeros((2000, 3)), 3000)
    assert_moments(theta, mean, covariance)


def test_the_step_of_a_mean_loss_is_n_times_that_of_the_sum():
    n, g = 50, jnp.arange(5.0)
    whole, mean = ox.sgld(0.001, 1.0, key=0), ox.sgld(0.001 * n, 1 / n, key=0)
    np.testing.assert_allclose(
        whole.update(g, whole.init(g))[0],
        mean.update(g / n, mean.init(g))[0],
        rtol=1e-5,
    )


def test_key_override_reaches_the_noise():
    g = jnp.zeros(10)
    for make in (ox.sgld, ox.psgld):
        tx, other = make(0.1, key=0), make(0.1, key=9)
        updates, _ = tx.update(g, tx.init(g), key=9)
        np.testing.assert_array_equal(updates, other.update(g, other.init(g))[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": -1}, ValueError, "`learning_rate` must be finite and >= 0"),
        ({"temperature": -1}, ValueError, "`temperature` must be finite and >= 0"),
        ({"temperature": True}, TypeError, "`temperature` must be a real number"),
        ({"decay": 1.0}, ValueError, r"`decay` must be in \[0, 1\).*, got 1.0"),
        ({"eps": 0.0}, ValueError, "`eps` must be finite and > 0, got 0.0"),
        ({"key": "a"}, TypeError, "`key` must be an int, .*, got 'a'"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.psgld(**{"learning_rate": 0.1, "key": 0, **arguments})
    if not {"decay", "eps"} & set(arguments):
        with pytest.raises(error, match=message):
            ox.add_langevin_noise(**{"learning_rate": 0.1, "key": 0, **arguments})
