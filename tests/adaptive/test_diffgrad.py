"""diffGrad against the paper's formulas in float64, and against Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import expit

import optax_extras as ox

from adaptive.steps import GRADIENTS, STEPS, assert_close, differ, run, updates_of
from specs import spec

NUMBERS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 1e-8}
SPECS = [
    spec(
        ox.scale_by_diffgrad,
        **NUMBERS,
        schedules=("b1", "b2"),
        supports={"complex"},
        buffers=3,
        temporaries=1,
    ),
    spec(
        ox.scale_by_diffgrad,
        "float32-moment",
        **NUMBERS,
        supports={"complex"},
        changes={"formula", "state"},
        static={"mu_dtype": jnp.float32},
        buffers=3,
        temporaries=1,
    ),
    spec(
        ox.diffgrad,
        learning_rate=0.1,
        **NUMBERS,
        weight_decay=0.01,
        schedules=("learning_rate", "b1", "b2", "weight_decay"),
        supports={"complex", "descent"},
        changes={"formula", "state"},
        buffers=3,
        temporaries=1,
    ),
]


def oracle(gradients, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    """The paper's equations in float64; the decays are numbers, or one of each step."""
    names = gradients[0].keys()
    m, v, last = (dict.fromkeys(names, 0.0) for _ in range(3))
    b1, b2 = (np.broadcast_to(b, len(gradients)) for b in (b1, b2))
    outputs = []
    for t, g in enumerate(gradients):
        m = {k: b1[t] * m[k] + (1 - b1[t]) * g[k] for k in names}
        v = {k: b2[t] * v[k] + (1 - b2[t]) * g[k] ** 2 for k in names}
        m_hat = {k: m[k] / (1 - np.prod(b1[: t + 1])) for k in names}
        v_hat = {k: v[k] / (1 - np.prod(b2[: t + 1])) for k in names}
        friction = {k: expit(np.abs(last[k] - g[k])) for k in names}
        outputs.append(
            {
                k: friction[k] * m_hat[k] / (np.sqrt(v_hat[k] + eps_root) + eps)
                for k in names
            }
        )
        last = g
    return outputs


OPTIONS = [
    {},
    {"b1": 0.0, "b2": 0.0},
    {"b1": 0.5, "b2": 0.9, "eps": 1e-2, "eps_root": 1e-2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_oracle(options, scale, x64):
    gradients = [jax.tree.map(lambda x: scale * x, g) for g in GRADIENTS]
    tx, expected = ox.scale_by_diffgrad(**options), oracle(gradients, **options)
    assert_close(updates_of(tx, gradients, jnp.float64), expected, rtol=1e-11)
    with jax.enable_x64(False):
        single = updates_of(tx, gradients)
    assert_close(single, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    b1=st.floats(0, 0.99),
    b2=st.floats(0.1, 0.999),
    scale=st.sampled_from((1e-3, 1.0, 1e3)),
)
def test_oracle_anywhere(shape, b1, b2, scale):
    rng = np.random.default_rng(1)
    gradients = [
        {"w": np.float64(np.float32(scale * rng.normal(size=shape)))} for _ in range(5)
    ]
    actual = updates_of(ox.scale_by_diffgrad(b1, b2), gradients)
    assert_close(actual, oracle(gradients, b1, b2), rtol=2e-4, atol=2e-4)


def test_decays_may_vary(x64):
    b1, b2 = np.linspace(0.5, 0.95, STEPS), np.linspace(0.9, 0.999, STEPS)
    tx = ox.scale_by_diffgrad(
        lambda t: jnp.asarray(b1)[t], lambda t: jnp.asarray(b2)[t]
    )
    found = updates_of(tx, dtype=jnp.float64)
    assert_close(found, oracle(GRADIENTS, b1, b2), rtol=1e-11)


def test_a_steady_gradient_is_scaled_to_one_half_whatever_the_decays_do(x64):
    tx = ox.scale_by_diffgrad(
        lambda t: 0.5 + 0.4 * jnp.sin(t), lambda t: 0.9 + 0.09 * jnp.cos(t)
    )
    gradients = [{"w": np.full(2, -3.0)}] * 12
    found = updates_of(tx, gradients, jnp.float64)
    np.testing.assert_allclose(found[0]["w"], -expit(3.0), rtol=1e-8)
    assert_close(found[1:], [{"w": np.full(2, -0.5)}] * 11, rtol=1e-8)


def test_with_a_friction_of_one_it_is_adam(x64):
    """Every element changes by more than forty in every step."""
    signs = (-1.0) ** np.arange(STEPS)
    gradients = [
        jax.tree.map(lambda x: 100 * s * (1 + np.abs(x)), g)  # noqa: B023
        for s, g in zip(signs, GRADIENTS, strict=True)
    ]
    options = {"b1": 0.8, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-3}
    found = updates_of(ox.scale_by_diffgrad(**options), gradients, jnp.float64)
    adam = updates_of(optax.scale_by_adam(**options), gradients, jnp.float64)
    assert_close(found, adam, rtol=1e-12)
    # Where gradients change little, it takes half of the step.
    small = [jax.tree.map(lambda x: 1e-6 * x, g) for g in gradients]
    found = updates_of(ox.scale_by_diffgrad(eps=0.0), small, jnp.float64)
    adam = updates_of(optax.scale_by_adam(eps=0.0), small, jnp.float64)
    halved = [jax.tree.map(lambda u: u / 2, u) for u in adam]
    assert_close(found, halved, rtol=1e-3)


@pytest.mark.parametrize(("change", "documented"), [(0.0, 0.5), (0.1, 0.525)])
def test_documented_friction(change, documented):
    tx = ox.scale_by_diffgrad(b1=0.0, b2=0.0)
    found = updates_of(tx, [{"w": np.ones(1)}, {"w": np.full(1, 1 + change)}])
    np.testing.assert_allclose(found[1]["w"], documented, rtol=1e-3)


def test_the_last_gradient_is_kept_in_its_own_dtype():
    _, state = run(ox.scale_by_diffgrad(), dtype=jnp.bfloat16)
    for name, last in state.previous.items():
        expected = np.asarray(GRADIENTS[-1][name], jnp.bfloat16)
        np.testing.assert_array_equal(last, expected)
        assert last.dtype == jnp.bfloat16


def test_the_state_outlives_the_gradient():
    grads = jnp.ones(3)
    tx = ox.scale_by_diffgrad()
    _, state = tx.update(grads, tx.init(jnp.zeros(3)))
    grads.delete()  # as donating it to a later computation does
    np.testing.assert_array_equal(state.previous, 1)


def test_the_change_of_a_complex_gradient_is_its_modulus():
    tx = ox.scale_by_diffgrad(b1=0.0, b2=0.0, eps=0.0)
    g = jnp.array([3.0 + 4.0j])
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(updates, expit(5.0) * g / 5, rtol=1e-6)


def test_state_bytes():
    params = {"w": jnp.zeros(1000), "b": jnp.zeros(1000, jnp.bfloat16)}
    state = ox.scale_by_diffgrad().init(params)
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    assert size == (12 + 8) * 1000 + 12


KEYWORDS = {
    "b1": 0.5,
    "b2": 0.5,
    "eps": 0.1,
    "eps_root": 0.1,
    "mu_dtype": jnp.bfloat16,
}


@pytest.mark.daily("b1", "eps_root")
@pytest.mark.parametrize("name", KEYWORDS)
def test_alias_passes_every_option_on(name):
    option = {name: KEYWORDS[name]}
    alias = updates_of(ox.diffgrad(0.1, **option))
    direction = ox.scale_by_diffgrad(**option)
    chained = updates_of(optax.chain(direction, optax.scale(-0.1)))
    assert_close(alias, chained, rtol=1e-6)
    assert differ(alias, updates_of(ox.diffgrad(0.1)))


def test_weight_decay_is_decoupled_and_masked():
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    tx = ox.diffgrad(0.1, weight_decay=0.5, mask={"w": True, "b": False})
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 * (expit(1.0) + 0.5), rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -0.1 * expit(1.0), rtol=1e-6)
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"b1": 1.0}, ValueError, r"`b1` must be in \[0, 1\).*, got 1.0"),
        ({"b2": -0.1}, ValueError, r"`b2` must be in \[0, 1\).*, got -0.1"),
        ({"b2": jnp.bfloat16(0.999)}, TypeError, "`b2` must be float32 or wider"),
        ({"eps": -1e-8}, ValueError, "`eps` must be finite and >= 0, got -1e-08"),
        ({"eps_root": -1.0}, ValueError, "`eps_root` must be finite and >= 0"),
        ({"mu_dtype": int}, TypeError, "`mu_dtype` must be a floating-point dtype"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.scale_by_diffgrad(**arguments)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
def test_bad_arguments_of_diffgrad(name):
    with pytest.raises(ValueError, match=f"`{name}` must be finite and >= 0, got -0.1"):
        ox.diffgrad(**{"learning_rate": 0.1, name: -0.1})


def test_a_gradient_that_stays_has_no_difference_where_it_is_stored_in_bfloat16():
    params = jnp.zeros(2, jnp.bfloat16)
    grads = jnp.array([100.3, 1000.7])
    half, whole = ox.scale_by_diffgrad(), optax.scale_by_adam()
    states = half.init(params), whole.init(grads)
    for _ in range(3):
        found, left = half.update(grads, states[0], params)
        expected, right = whole.update(grads, states[1])
        states = left, right
    np.testing.assert_allclose(found, expected / 2, rtol=0.01)
