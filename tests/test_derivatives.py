"""Derivatives of a loss with respect to the hyperparameters, through three steps.

They are held against central differences beside them, in double precision: at the end
of a range, the differences must stay in it. The loss does not depend on one of the
leaves, so its gradient is 0.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox

SHIFT = 1e-6
QHADAM = {"b1": 0.8, "b2": 0.95, "nu1": 0.7, "nu2": 0.9, "eps": 0.01}
ADAM = {"b1_min": 0.8, "b1_max": 0.99, "b2": 0.95, "gamma": 0.8, "eps": 0.01}


def loss(params):
    return jnp.sum(jnp.tanh(params["w"] - 0.3) ** 2) + 0 * params["idle"]


def trained(tx):
    """The loss after training, and what became of the leaf that it ignores."""
    params = {"w": jnp.array([0.5, -1.2, 0.8]), "idle": jnp.array(0.0)}

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, length=3)
    return loss(params) + jnp.sin(params["idle"])


def warm_up(make):
    """Raises the first argument from 0."""
    return lambda value, **values: make(lambda t: value * t / 2, **values)


def anneal(make):
    """Lowers the first argument to 0."""
    return lambda value, **values: make(lambda t: value * (1 - t / 2), **values)


def at_temperature(temperature, make, learning_rate, **values):
    return make(learning_rate, temperature, **values, key=0)


def aggmo(learning_rate, first, second):
    return ox.aggmo(learning_rate, (0.0, first, second))


noisy_sgd = partial(ox.noisy_sgd, key=0, nesterov=True)
sgld = partial(ox.sgld, key=0)
psgld = partial(ox.psgld, key=0)
momentum_sgd = partial(ox.momentum_sgd, nesterov=True, bias_correction=True)
CASES = {
    "noisy_sgd": (noisy_sgd, 0.1, {"eta": 0.3, "gamma": 0.5, "momentum": 0.8}),
    "noisy_sgd at 0": (noisy_sgd, 0.0, {"eta": 0.3, "gamma": 0.0, "momentum": 0.0}),
    "noise that ends": (anneal(partial(ox.add_decayed_noise, key=0)), 0.3, {}),
    "anti_pgd": (partial(ox.anti_pgd, key=0), 0.1, {"stddev": 0.05}),
    "sgld": (sgld, 0.1, {"temperature": 0.5}),
    "sgld with a warm-up": (warm_up(sgld), 0.1, {"temperature": 0.5}),
    "sgld without noise": (partial(at_temperature, 0.0, ox.sgld), 0.1, {}),
    "psgld": (psgld, 0.1, {"temperature": 0.5, "decay": 0.9, "eps": 0.1}),
    "psgld without noise": (
        partial(at_temperature, 0.0, ox.psgld),
        0.1,
        {"decay": 0.0, "eps": 0.1},
    ),
    "momentum_sgd": (momentum_sgd, 0.1, {"momentum": 0.8}),
    "momentum_sgd with a warm-up": (warm_up(momentum_sgd), 0.1, {"momentum": 0.0}),
    "nesterov_lookahead": (ox.nesterov_lookahead, 0.1, {"momentum": 0.8}),
    "qhm": (ox.qhm, 0.1, {"momentum": 0.8, "nu": 0.7}),
    "qhm at 0": (ox.qhm, 0.1, {"momentum": 0.0, "nu": 0.0}),
    "aggmo": (aggmo, 0.1, {"first": 0.5, "second": 0.8}),
    "srsgd": (partial(ox.srsgd, restart_every=2), 0.1, {}),
    "qhadam": (ox.qhadam, 0.1, {**QHADAM, "weight_decay": 0.1}),
    "qhadam at 0": (ox.qhadam, 0.1, dict.fromkeys(QHADAM, 0.0) | {"eps": 0.01}),
    "adasmooth": (ox.adasmooth, 0.1, {**ADAM, "weight_decay": 0.1}),
    "adasmooth at 0": (ox.adasmooth, 0.1, dict.fromkeys(ADAM, 0.0) | {"eps": 0.01}),
    "adasmooth as Adam": (
        partial(ox.adasmooth, scope="element", debias="product"),
        0.1,
        {**ADAM, "b1_max": ADAM["b1_min"]},
    ),
    "adashift": (partial(ox.adashift, window=2), 0.1, {"b1": 0.8, "eps": 0.01}),
    "adashift by element": (
        partial(ox.adashift, window=1, spatial="element", eps=0.0),
        0.1,
        {"b2": 0.8},
    ),
    "adai": (ox.adai, 0.1, {"b0": 0.3, "b2": 0.9, "eps": 0.1}),
    "adai at 0": (ox.adai, 0.1, {"b2": 0.0}),
    "diffgrad": (ox.diffgrad, 0.1, {"b1": 0.8, "b2": 0.95, "eps": 0.01}),
    "diffgrad at 0": (ox.diffgrad, 0.1, {"b1": 0.0, "b2": 0.0, "eps": 0.01}),
}


# These take longest, and others differentiate what they do.
LONG = {"adasmooth as Adam", "anti_pgd", "psgld"}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "case",
    [pytest.param(k, marks=[pytest.mark.nightly] * (k in LONG)) for k in CASES],
)
def test_hyperparameters_have_derivatives(case):
    make, first, others = CASES[case]

    def outcome(values):
        value, *rest = values
        return trained(make(value, **dict(zip(others, rest, strict=True))))

    @jax.jit
    def derivatives(point):
        beside = point + 2 * SHIFT * jnp.arange(1, point.size + 1)
        ahead, behind = (
            jax.vmap(outcome)(beside[None] + shift * jnp.eye(point.size))
            for shift in (SHIFT, -SHIFT)
        )
        differences = (ahead - behind) / (2 * SHIFT)
        return differences, jax.jacfwd(outcome)(point), jax.jacrev(outcome)(point)

    expected, forward, reverse = derivatives(jnp.array([first, *others.values()]))
    np.testing.assert_allclose(forward, expected, rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(reverse, expected, rtol=1e-2, atol=1e-4)
