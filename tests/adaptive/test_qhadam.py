"""QHAdam against its formula in float64, and against what it reduces to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox

from decays import GRADIENTS, STEPS, at, rising
from specs import spec

STAGE = {
    "b1": 0.9,
    "b2": 0.99,
    "nu1": 0.7,
    "nu2": 0.9,
    "eps": 1e-8,
    "eps_root": 0.0,
    "schedules": ("b1", "b2", "nu1", "nu2"),
    "supports": {"complex"},
    "buffers": 2,
}
SPECS = [
    spec(ox.scale_by_qhadam, **STAGE),
    spec(
        ox.scale_by_qhadam,
        "of-averages",
        b1=0.9,
        b2=0.99,
        static={"nu1": 1.0, "nu2": 1.0},
        supports={"complex"},
        buffers=2,
        changes={"formula"},
    ),
    spec(
        ox.scale_by_qhadam,
        "float32-moments",
        **STAGE,
        static={"mu_dtype": jnp.float32},
        changes={"formula", "state"},
    ),
    spec(
        ox.qhadam,
        learning_rate=0.1,
        weight_decay=0.01,
        **{
            **STAGE,
            "schedules": ("learning_rate", "weight_decay", *STAGE["schedules"]),
            "supports": {"complex", "descent"},
        },
        changes={"formula", "state"},
    ),
]


def falling(t):
    return 0.9 / (1 + t / 10)


def oracle(b1, b2, nu1, nu2, eps=1e-8, eps_root=0.0):
    """The paper's equations in float64, with products of decays: every direction."""
    m, v, product1, product2, outputs = np.zeros(5), np.zeros(5), 1.0, 1.0, []
    for t, g in enumerate(GRADIENTS):
        beta1, beta2, share1, share2 = (at(x, t) for x in (b1, b2, nu1, nu2))
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        product1, product2 = product1 * beta1, product2 * beta2
        numerator = (1 - share1) * g + share1 * m / (1 - product1)
        square = (1 - share2) * g**2 + share2 * v / (1 - product2)
        outputs.append(numerator / (np.sqrt(square + eps_root) + eps))
    return np.stack(outputs)


def updates_of(tx, dtype=jnp.float32, gradients=GRADIENTS):
    """Updates of all steps; a function of traced hyperparameters too."""
    params = jnp.ones(gradients.shape[1:], dtype)
    _, outputs = jax.lax.scan(
        lambda state, g: tx.update(g, state, params)[::-1],
        tx.init(params),
        jnp.asarray(gradients, dtype),
    )
    return outputs


@pytest.mark.parametrize(
    "decays", [(0.995, 0.999), (0.0, 0.0), (rising, falling), (falling, rising)]
)
@pytest.mark.parametrize("nus", [(0.7, 1.0), (0.0, 0.0), (1.0, 0.5), (falling, rising)])
def test_oracle(decays, nus):
    actual = updates_of(ox.scale_by_qhadam(*decays, *nus))
    np.testing.assert_allclose(actual, oracle(*decays, *nus), 1e-4, 1e-5)


@pytest.mark.parametrize("b1", [0.995, lambda t: rising(np.float64(1) * t)])
def test_oracle_in_double_precision(b1, x64):
    arguments = (b1, 0.999, 0.7, 0.9, 0.1, 0.01)
    tx = ox.scale_by_qhadam(*arguments[:-1], eps_root=arguments[-1])
    assert tx.init(jnp.ones(5)).mu_weight.dtype == jnp.float64
    actual = updates_of(tx, jnp.float64)
    np.testing.assert_allclose(actual, oracle(*arguments), rtol=1e-11)


def test_shares_of_one_are_adam(x64):
    adam = updates_of(optax.adam(0.1, 0.9, 0.99), jnp.float64)
    for one in (1.0, jnp.ones(())):  # left out, and computed
        actual = updates_of(ox.qhadam(0.1, 0.9, 0.99, one, one), jnp.float64)
        np.testing.assert_allclose(actual, adam, rtol=1e-11)


def test_weight_decay_is_that_of_adamw(x64):
    adamw = updates_of(optax.adamw(0.1, 0.9, 0.99, weight_decay=0.1), jnp.float64)
    tx = ox.qhadam(0.1, 0.9, 0.99, 1.0, weight_decay=0.1)
    np.testing.assert_allclose(updates_of(tx, jnp.float64), adamw, rtol=1e-11)
    none = ox.qhadam(0.1, 0.9, 0.99, 1.0, weight_decay=0.1, mask=False)
    adam = updates_of(optax.adam(0.1, 0.9, 0.99), jnp.float64)
    np.testing.assert_allclose(updates_of(none, jnp.float64), adam, rtol=1e-11)


def test_no_shares_are_signs():
    actual = updates_of(ox.scale_by_qhadam(nu1=0.0, nu2=0.0))
    np.testing.assert_allclose(actual, np.sign(GRADIENTS), 1e-5)


def test_nu1_of_b1_is_nesterov_adam(x64):
    """But for the bias correction of the first moment, which ends."""
    gradients = np.tile(GRADIENTS, (20, 1))
    actual = updates_of(ox.qhadam(0.1, 0.9, 0.99, 0.9), jnp.float64, gradients)
    nadam = updates_of(
        optax.adam(0.1, 0.9, 0.99, nesterov=True), jnp.float64, gradients
    )
    np.testing.assert_allclose(actual[-1], nadam[-1], rtol=1e-6)


@pytest.mark.parametrize("b1", [0.9, rising, falling])
def test_debiasing_is_exact_where_decays_vary(b1):
    """Optax's own debiasing is off by far, with a decay that rises."""
    ones = np.ones((STEPS, 1))
    for nu1 in (0.7, 1.0):
        tx = ox.scale_by_qhadam(b1, falling, nu1)
        np.testing.assert_allclose(updates_of(tx, gradients=ones), 1, 1e-5)
    adam = optax.inject_hyperparams(optax.scale_by_adam)(b1=b1)
    is_off = np.abs(updates_of(adam, gradients=ones) - 1).max() > 0.1
    assert is_off == callable(b1)


@pytest.mark.parametrize(
    ("arguments", "size"), [({}, 9.6), ({"b1": 0.9, "nu1": 1.0}, 3.2)]
)
def test_a_large_gradient_after_small_ones(arguments, size):
    gradients = np.full((10_000, 1), 1e-3)
    gradients[-1] = 1e3
    tx = ox.scale_by_qhadam(**arguments)
    last = updates_of(tx, gradients=gradients)[-1]
    assert float(last[0]) == pytest.approx(size, abs=0.05)


def test_every_hyperparameter_is_mapped():
    def updates(*values):
        *positional, eps_root, weight_decay = values
        return updates_of(
            ox.qhadam(*positional, eps_root=eps_root, weight_decay=weight_decay)
        )

    columns = jnp.array(
        [
            [0.1, 0.2, 0.1],  # learning rate
            [0.9, 0.0, 0.995],
            [0.99, 0.9, 0.0],
            [0.7, 0.0, 1.0],
            [1.0, 0.5, 0.0],
            [1e-8, 1e-3, 0.1],  # eps
            [0.0, 1e-3, 0.1],
            [0.0, 0.1, 1.0],
        ]
    )
    for row, values in zip(jax.vmap(updates)(*columns), columns.T, strict=True):
        np.testing.assert_allclose(row, updates(*values.tolist()), 1e-5, 1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"b1": 1.0}, ValueError, r"`b1` must be in \[0, 1\).*, got 1.0"),
        ({"b2": -0.1}, ValueError, r"`b2` must be in \[0, 1\).*, got -0.1"),
        ({"nu1": 1.1}, ValueError, r"`nu1` must be in \[0, 1\], got 1.1"),
        ({"nu2": -0.1}, ValueError, r"`nu2` must be in \[0, 1\], got -0.1"),
        ({"eps": -1.0}, ValueError, "`eps` must be finite and >= 0, got -1"),
        ({"eps_root": -1.0}, ValueError, "`eps_root` must be finite and >= 0, got -1"),
        ({"mu_dtype": int}, TypeError, "must be a floating-point dtype"),
        ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be finite and >="),
        ({"weight_decay": -1.0}, ValueError, "`weight_decay` must be finite and >= 0"),
        ({"nu1": True}, TypeError, "`nu1` must be a real number, got True"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.qhadam(**{"learning_rate": 0.1, **arguments})


def test_weight_decay_needs_the_parameters():
    tx = ox.qhadam(0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match="`params` must be given to `update` with"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
