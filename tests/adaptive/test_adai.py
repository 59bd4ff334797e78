"""Adai against the paper's formulas in float64, and against what it reduces to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

import optax_extras as ox

from adaptive.steps import GRADIENTS, STEPS, assert_close, differ, run, updates_of
from specs import spec

NUMBERS = {"b0": 0.1, "b2": 0.99, "eps": 1e-3}
SPECS = [
    spec(
        ox.scale_by_adai,
        **NUMBERS,
        schedules=("b2",),
        supports={"complex"},
        buffers=3,
    ),
    spec(
        ox.scale_by_adai,
        "float32-moment",
        **NUMBERS,
        supports={"complex"},
        changes={"formula", "state"},
        static={"mu_dtype": jnp.float32},
        buffers=3,
    ),
    spec(
        ox.adai,
        learning_rate=0.1,
        **NUMBERS,
        weight_decay=0.01,
        schedules=("learning_rate", "b2", "weight_decay"),
        supports={"complex", "descent"},
        changes={"formula", "state"},
        buffers=3,
    ),
]


def oracle(gradients, b0=0.1, b2=0.99, eps=1e-3):
    """The paper's equations in float64; b2 is a number, or one of each step.

    A leaf whose gradient is None is left out, as in the authors' code.
    """
    names = gradients[0].keys()
    m, v = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    product, kept, outputs = dict.fromkeys(names, 1.0), 1.0, []
    b2 = np.broadcast_to(b2, len(gradients))
    for t, g in enumerate(gradients):
        there = [k for k in names if g[k] is not None]
        kept *= b2[t]
        for k in there:
            v[k] = b2[t] * v[k] + (1 - b2[t]) * g[k] ** 2
        v_hat = {k: v[k] / (1 - kept) for k in there}
        size = sum(g[k].size for k in there)
        mean = sum(v_hat[k].sum() for k in there) / size
        update = dict.fromkeys(names)
        for k in there:
            b1 = np.clip(1 - b0 / mean * v_hat[k], 0, 1 - eps)
            m[k] = b1 * m[k] + (1 - b1) * g[k]
            product[k] = product[k] * b1
            update[k] = m[k] / (1 - product[k])
        outputs.append(update)
    return outputs


OPTIONS = [
    {},
    {"b0": 0.0},
    {"b0": 2.0, "b2": 0.5, "eps": 0.1},
    {"b2": 0.0},
    {"eps": 1.0},
    {"eps": 1e-9},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_oracle(options, x64):
    tx = ox.scale_by_adai(**options)
    expected = oracle(GRADIENTS, **options)
    assert_close(updates_of(tx, dtype=jnp.float64), expected, rtol=1e-9)
    with jax.enable_x64(False):
        single = updates_of(tx)
    assert_close(single, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    shape=st.lists(st.integers(1, 3), max_size=3),
    b0=st.floats(0, 2),
    b2=st.floats(0, 0.999),
    eps=st.floats(1e-4, 1),
    scale=st.sampled_from((1e-3, 1.0, 1e3)),
)
def test_oracle_anywhere(shape, b0, b2, eps, scale):
    rng = np.random.default_rng(1)
    gradients = [
        {"w": np.float32(scale * rng.normal(size=shape)), "b": np.float32(rng.normal())}
        for _ in range(5)
    ]
    gradients = [{k: np.float64(v) for k, v in g.items()} for g in gradients]
    actual = updates_of(ox.scale_by_adai(b0, b2, eps), gradients)
    assert_close(actual, oracle(gradients, b0, b2, eps), rtol=2e-4, atol=2e-4)


def test_the_second_decay_may_vary(x64):
    b2 = np.linspace(0.5, 0.99, STEPS)
    tx = ox.scale_by_adai(b2=lambda t: jnp.asarray(b2)[t])
    found = updates_of(tx, dtype=jnp.float64)
    assert_close(found, oracle(GRADIENTS, b2=b2), rtol=1e-9)


def test_a_constant_gradient_is_handed_out_as_it_is(x64):
    """Whatever the decays were, as long as the weight is theirs."""
    gradients = [{"w": np.array([3.0, 0.1, -0.01])}] * 20
    tx = ox.scale_by_adai(0.3, lambda t: 0.9 - 0.4 * jnp.cos(t))
    assert_close(updates_of(tx, gradients, jnp.float64), gradients, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "decay"),
    [({"b0": 0.0}, 1 - 1e-3), ({"b0": 0.0, "eps": 0.1}, 0.9), ({"eps": 1.0}, 0.0)],
)
def test_one_decay_for_all_is_an_average_of_optax(options, decay, x64):
    """With a decay of 0 that is SGD."""
    found = updates_of(ox.scale_by_adai(**options), dtype=jnp.float64)
    average = updates_of(optax.ema(decay, debias=True), dtype=jnp.float64)
    assert_close(found, average, rtol=1e-9)
    if decay == 0:
        assert_close(found, GRADIENTS, rtol=1e-12)


def test_gradients_of_one_size_have_the_decay_of_the_mean(x64):
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (20, 4))
    gradients = [{"w": 0.01 * s} for s in signs]
    found = updates_of(ox.scale_by_adai(0.1), gradients, jnp.float64)
    average = updates_of(optax.ema(0.9, debias=True), gradients, jnp.float64)
    assert_close(found, average, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_all_gradients_does_not_matter(scale, x64):
    scaled = [jax.tree.map(lambda g: scale * g, g) for g in GRADIENTS]
    tx = ox.scale_by_adai()
    found = updates_of(tx, scaled, jnp.float64)
    expected = [jax.tree.map(lambda u: scale * u, u) for u in oracle(GRADIENTS)]
    assert_close(found, expected, rtol=1e-9)


def test_the_mean_of_each_leaf_is_that_of_its_second_moment():
    _, state = run(ox.scale_by_adai())
    for name, mean in state.nu_mean.items():
        np.testing.assert_allclose(mean, state.nu[name].mean(), rtol=1e-5)


def test_leaves_without_a_gradient_are_not_in_the_mean(x64):
    gradients = [{**g, "w": None} if t % 3 == 1 else g for t, g in enumerate(GRADIENTS)]
    tx = ox.scale_by_adai()
    state = tx.init(jax.tree.map(jnp.asarray, GRADIENTS[0]))
    found = []
    for g in gradients:
        updates, state = tx.update(jax.tree.map(jnp.asarray, g), state)
        found.append(updates)
    expected = oracle(gradients)
    assert [u["w"] is None for u in found] == [t % 3 == 1 for t in range(STEPS)]
    there = [{k: v for k, v in u.items() if v is not None} for u in expected]
    assert_close(found, there, rtol=1e-9)


@pytest.mark.parametrize("zeros", [1, 3])
def test_gradients_of_zero_leave_no_nan(zeros):
    gradients = [jax.tree.map(np.zeros_like, GRADIENTS[0])] * zeros + GRADIENTS
    found = updates_of(ox.scale_by_adai(), gradients)
    assert_close(found[:zeros], gradients[:zeros], atol=0)
    # Until then all decays were 1 − ε, so that zeros have that weight.
    assert all(np.isfinite(u["w"]).all() for u in found)
    assert (found[-1]["w"] != 0).all()


def test_an_overflow_does_not_stay_in_the_mean():
    tx = ox.scale_by_adai(b2=0.5)
    state = tx.init(jnp.zeros(100))
    for scale in (1.0, 1e19, 1.0):
        updates, state = tx.update(jnp.full(100, scale), state)
        assert bool(jnp.isfinite(updates).all())
        assert bool(jnp.isfinite(state.nu_mean))


def test_the_weight_does_not_cancel():
    """At the first step it is ε where a gradient is small; 1 − (1 − ε) is not."""
    tx = ox.scale_by_adai(eps=1e-6)
    updates, state = tx.update(jnp.array([1.0, 1e-4]), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [1.0, 1e-4], rtol=1e-6)
    np.testing.assert_allclose(state.mu_weight[1], 1e-6, rtol=1e-6)


def test_state_bytes():
    params = {"w": jnp.zeros(1000), "b": jnp.zeros(1000, jnp.bfloat16)}

    def size(**options):
        state = ox.scale_by_adai(**options).init(params)
        return sum(x.nbytes for x in jax.tree.leaves(state))

    assert size() == (12 + 10) * 1000 + 4 + 2 * 4
    assert size(mu_dtype=jnp.bfloat16) == (10 + 10) * 1000 + 4 + 2 * 4


KEYWORDS = {"b0": 0.5, "b2": 0.5, "eps": 0.1, "mu_dtype": jnp.bfloat16}


@pytest.mark.daily("b0", "mu_dtype")
@pytest.mark.parametrize("name", KEYWORDS)
def test_alias_passes_every_option_on(name):
    option = {name: KEYWORDS[name]}
    alias = updates_of(ox.adai(0.1, **option))
    direction = ox.scale_by_adai(**option)
    chained = updates_of(optax.chain(direction, optax.scale(-0.1)))
    assert_close(alias, chained, rtol=1e-6)
    assert differ(alias, updates_of(ox.adai(0.1)))


def test_weight_decay_is_decoupled_and_masked():
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    tx = ox.adai(0.1, weight_decay=0.5, mask={"w": True, "b": False})
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 * (1 + 0.5), rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -0.1, rtol=1e-6)
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"b0": -0.1}, ValueError, "`b0` must be finite and >= 0, got -0.1"),
        ({"b2": 1.0}, ValueError, r"`b2` must be in \[0, 1\).*, got 1.0"),
        ({"b2": jnp.bfloat16(0.99)}, TypeError, "`b2` must be float32 or wider"),
        ({"eps": 0.0}, ValueError, r"`eps` must be in \(0, 1\], got 0.0"),
        ({"eps": 1.5}, ValueError, r"`eps` must be in \(0, 1\], got 1.5"),
        ({"mu_dtype": int}, TypeError, "`mu_dtype` must be a floating-point dtype"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.scale_by_adai(**arguments)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
def test_bad_arguments_of_adai(name):
    with pytest.raises(ValueError, match=f"`{name}` must be finite and >= 0, got -0.1"):
        ox.adai(**{"learning_rate": 0.1, name: -0.1})
