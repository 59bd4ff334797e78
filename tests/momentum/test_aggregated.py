"""Aggregated momentum against its formula, and against what it reduces to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox

from decays import GRADIENTS, at, rising
from specs import spec

REAL = {"complex", "complex_as_real"}
SPECS = [
    spec(ox.scale_by_aggregated_momentum, supports=REAL, buffers=2),
    spec(
        ox.scale_by_aggregated_momentum,
        "four",
        static={"decays": (0.5, 0.9, 0.99, lambda t: 0.999)},
        supports=REAL,
        buffers=4,
        changes={"formula", "state"},
    ),
    spec(
        ox.scale_by_aggregated_momentum,
        "float32-accumulator",
        static={"accumulator_dtype": jnp.float32},
        supports=REAL,
        buffers=2,
        changes={"formula", "state"},
    ),
    spec(
        ox.aggmo,
        learning_rate=0.02,
        schedules=("learning_rate",),
        supports=REAL | {"descent"},
        buffers=2,
        changes={"formula", "state"},
    ),
]


def falling(t):
    return 0.2 / (1 + t)


def oracle(rate, decays):
    """The paper's equations in float64: every step, with its sign of v."""
    v, steps = np.zeros((len(decays), 5)), []
    for t, g in enumerate(GRADIENTS):
        v = np.array([at(beta, t) * old - g for beta, old in zip(decays, v)])  # noqa: B905
        steps.append(at(rate, t) / len(decays) * v.sum(0))
    return np.stack(steps)


def updates_of(tx, dtype=jnp.float32):
    """Updates of all steps; a function of traced hyperparameters too."""
    _, outputs = jax.lax.scan(
        lambda state, g: tx.update(g, state)[::-1],
        tx.init(jnp.ones(5, dtype)),
        jnp.asarray(GRADIENTS, dtype),
    )
    return outputs


DECAYS = [
    (0.0, 0.9, 0.99),
    (0.9, 0.0),
    (0.9, 0.9, 0.5),  # of equal decays, each has a trace
    (0.0, 0.0, 0.9, 0.99, 0.999),
    (rising, 0.9, 0),
    (0.0,),
    (0.0, 0.0),
]


@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("rate", [0.1, falling])
def test_oracle(rate, decays):
    expected = oracle(rate, decays)
    np.testing.assert_allclose(updates_of(ox.aggmo(rate, decays)), expected, 1e-5, 1e-6)


def test_oracle_in_double_precision(x64):
    actual = updates_of(ox.aggmo(0.1), jnp.float64)
    np.testing.assert_allclose(actual, oracle(0.1, (0.0, 0.9, 0.99)), rtol=1e-12)


def test_one_decay_is_momentum():
    for decay in (0.0, 0.9):
        expected = updates_of(optax.sgd(falling, decay))
        actual = updates_of(ox.aggmo(falling, [decay]))
        np.testing.assert_allclose(actual, expected, 1e-6)


def test_equal_decays_are_momentum():
    expected = updates_of(optax.trace(0.9))
    actual = updates_of(ox.scale_by_aggregated_momentum((0.9, 0.9, 0.9)))
    np.testing.assert_allclose(actual, expected, 1e-5, 1e-6)


def test_zeros_as_numbers_take_no_memory_and_those_in_arrays_do():
    def buffers(decays):
        tx = ox.scale_by_aggregated_momentum(decays)
        return len(tx.init(jnp.ones(5)).traces)

    assert buffers((0.0, 0.9, 0.99)) == buffers((0, 0.9, 0.99)) == 2
    assert buffers(jnp.array([0.0, 0.9, 0.99])) == 3
    assert buffers((0.0,)) == 1


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray])
def test_decays_may_be_an_array(kind):
    actual = updates_of(ox.aggmo(0.1, kind([0.0, 0.9, 0.99])))
    np.testing.assert_allclose(actual, updates_of(ox.aggmo(0.1)), 1e-5, 1e-6)


def test_every_hyperparameter_is_mapped():
    rates = jnp.array([0.1, 0.2])
    decays = jnp.array([[0.0, 0.9, 0.99], [0.5, 0.95, 0.0]])
    together = jax.vmap(lambda *values: updates_of(ox.aggmo(*values)))(rates, decays)
    one_by_one = jax.vmap(lambda rate, *betas: updates_of(ox.aggmo(rate, betas)))
    np.testing.assert_allclose(one_by_one(rates, *decays.T), together, 1e-6)
    for row, rate, betas in zip(together, rates, decays.tolist(), strict=True):
        alone = updates_of(ox.aggmo(float(rate), betas))
        np.testing.assert_allclose(row, alone, 1e-5, 1e-6)


def test_injected_decays_take_effect():
    tx = optax.inject_hyperparams(ox.aggmo)(0.1, decays=jnp.array([0.5, 0.9]))
    ones = jnp.ones(2)
    _, state = tx.update(ones, tx.init(ones))
    state.hyperparams["decays"] = jnp.zeros(2)
    np.testing.assert_allclose(tx.update(ones, state)[0], -0.1)


def test_the_gain_of_a_constant_gradient():
    tx = ox.scale_by_aggregated_momentum()

    def step(state, _):
        return tx.update(jnp.ones(()), state)[::-1]

    gains = jax.lax.scan(step, tx.init(jnp.ones(())), length=3000)[1]
    assert float(gains[-1]) == pytest.approx((1 + 10 + 100) / 3, rel=1e-4)


def best_loss(make, condition):
    """Of several learning rates, after 1000 steps on a quadratic."""
    curvature = jnp.logspace(-np.log10(condition), 0, 20)

    def final(rate):
        tx = make(rate)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(curvature * params, state)
            params = optax.apply_updates(params, updates)
            return (params, state), jnp.sum(curvature * params**2)

        start = jnp.ones(20)
        losses = jax.lax.scan(step, (start, tx.init(start)), length=1000)[1]
        return jnp.max(losses[-5:])

    return float(jnp.min(jax.vmap(final)(jnp.array([0.1, 0.2, 0.5, 1, 2, 3]))))


@pytest.mark.parametrize("condition", [100, 1000, 10_000])
def test_the_docstring_tells_where_it_is_ahead(condition):
    aggregated = best_loss(ox.aggmo, condition)
    fast = best_loss(lambda rate: ox.momentum_sgd(rate, 0.99), condition)
    slow = best_loss(lambda rate: ox.momentum_sgd(rate, 0.9), condition)
    assert aggregated < fast / 100
    assert (aggregated < slow / 10) == (condition == 10_000)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"decays": 0.9}, TypeError, "`decays` must be a sequence of numbers or sche"),
        ({"decays": "0.9"}, TypeError, "`decays` must be a sequence .*, got '0.9'"),
        ({"decays": jnp.ones((2, 2))}, TypeError, "`decays` must be a sequence"),
        ({"decays": ()}, ValueError, r"`decays` must have at least one number, got \("),
        (
            {"decays": (0.9, 1.0)},
            ValueError,
            r"`decays\[1\]` must be in \[0, 1\).*, got 1",
        ),
        ({"decays": (None,)}, TypeError, r"`decays\[0\]` must be a real number"),
        ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be finite and >="),
        ({"accumulator_dtype": int}, TypeError, "must be a floating-point dtype"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.aggmo(**{"learning_rate": 0.1, **arguments})
