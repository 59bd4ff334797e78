"""AdaSmooth against its formulas in float64, and against Adam."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import expit

import optax_extras as ox
from optax_extras.tuning import jumping_quadratic, sweep

from adaptive.steps import GRADIENTS, assert_close, differ, updates_of
from specs import spec

BETAS = {"b1_min": 0.9, "b1_max": 0.999, "b2": 0.999, "gamma": 0.9, "eps": 1e-8}
SCALE = {**BETAS, "supports": {"complex"}}
OPTIMIZER = {"learning_rate": 0.1, "supports": {"complex", "descent"}}
SPECS = [
    spec(ox.scale_by_adasmooth, **SCALE, buffers=3),
    spec(
        ox.scale_by_adasmooth,
        "leaf",
        **SCALE,
        changes={"formula", "state", "sums"},
        buffers=3,
        static={"scope": "leaf", "debias": "product"},
    ),
    spec(
        ox.scale_by_adasmooth,
        "element",
        **SCALE,
        changes={"formula", "state", "sums"},
        buffers=4,
        static={"scope": "element", "normalize": True},
    ),
    spec(
        ox.scale_by_adasmooth,
        "mended",
        **SCALE,
        changes={"formula", "state"},
        buffers=3,
        static={
            "normalize": True,
            "debias": "product",
            "smoothness": lambda v: jnp.exp(-v),
            "mu_dtype": jnp.float32,
        },
    ),
    spec(
        ox.adasmooth,
        **BETAS,
        **OPTIMIZER,
        changes={"formula", "state"},
        schedules=("learning_rate",),
        buffers=3,
    ),
    spec(
        ox.adasmooth,
        "weight-decay",
        **OPTIMIZER,
        changes={"formula", "state"},
        weight_decay=0.01,
        buffers=5,
        static={"scope": "element", "debias": "product"},
    ),
]


def pool(tree, scope):
    """Sums over each scope, broadcast back to every leaf's shape."""
    if scope == "element":
        return tree
    sums = {k: np.full(v.shape, v.sum()) for k, v in tree.items()}
    if scope == "leaf":
        return sums
    total = sum(v.sum() for v in tree.values())
    return {k: np.full(v.shape, total) for k, v in tree.items()}


def oracle(
    gradients,
    b1_min=0.9,
    b1_max=0.999,
    b2=0.999,
    gamma=0.9,
    eps=1e-8,
    eps_root=0.0,
    scope="tree",
    normalize=False,
    smoothness=lambda v: expit(-v),
    debias="power",
):
    """The source's equations in float64: the update of every step."""
    names = gradients[0].keys()
    zeros = {k: np.zeros(np.shape(gradients[0][k])) for k in names}
    m, s, v, previous = zeros, zeros, zeros, gradients[0]
    product, outputs = dict.fromkeys(names, 1.0), []
    for t, g in enumerate(gradients, start=1):
        change = pool({k: (g[k] - previous[k]) ** 2 for k in names}, scope)
        if normalize:
            size = pool({k: g[k] ** 2 + previous[k] ** 2 for k in names}, scope)
            change = {k: change[k] / np.where(size[k] > 0, size[k], 1) for k in names}
        v = {k: gamma * v[k] + (1 - gamma) * change[k] for k in names}
        b1 = {k: b1_min + (b1_max - b1_min) * smoothness(v[k]) for k in names}
        m = {k: b1[k] * m[k] + (1 - b1[k]) * g[k] for k in names}
        s = {k: b2 * s[k] + (1 - b2) * g[k] ** 2 for k in names}
        product = {k: product[k] * b1[k] for k in names}
        decayed = product if debias == "product" else {k: b1[k] ** t for k in names}
        outputs.append(
            {
                k: m[k]
                / (1 - decayed[k])
                / (np.sqrt(s[k] / (1 - b2**t) + eps_root) + eps)
                for k in names
            }
        )
        previous = g
    return outputs


OPTIONS = [
    {"scope": scope, "normalize": normalize, "debias": debias}
    for scope, normalize, debias in itertools.product(
        ("tree", "leaf", "element"), (False, True), ("power", "product")
    )
]
OPTIONS += [
    {"gamma": 0.0},
    {"b2": 0.9, "eps": 1e-3, "eps_root": 1e-4},
    {"b1_min": 0.0, "b1_max": 0.5, "gamma": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_oracle(options):
    actual = updates_of(ox.scale_by_adasmooth(**options))
    assert_close(actual, oracle(GRADIENTS, **options), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("options", [{}, {"normalize": True, "debias": "product"}])
def test_oracle_with_the_whole_range_of_b1(options):
    expected = oracle(GRADIENTS, smoothness=lambda v: np.exp(-v), **options)
    tx = ox.scale_by_adasmooth(smoothness=lambda v: jnp.exp(-v), **options)
    assert_close(updates_of(tx), expected, rtol=1e-5, atol=1e-5)


def test_oracle_in_double_precision(x64):
    actual = updates_of(ox.scale_by_adasmooth(), dtype=jnp.float64)
    assert_close(actual, oracle(GRADIENTS), rtol=1e-12)


def test_equal_bounds_are_adam(x64):
    tx = ox.scale_by_adasmooth(b1_min=0.9, b1_max=0.9)
    adam = updates_of(optax.scale_by_adam(), dtype=jnp.float64)
    assert_close(updates_of(tx, dtype=jnp.float64), adam, rtol=1e-12)
    # In float32 too it is Adam, and closer to it than optax's float32 Adam.
    assert_close(updates_of(tx), adam, rtol=1e-6, atol=1e-6)
    with jax.enable_x64(False):
        assert_close(updates_of(tx), adam, rtol=1e-6, atol=1e-6)
        theirs = updates_of(optax.scale_by_adam())[0]["w"]
    assert np.abs(theirs / adam[0]["w"] - 1).max() > 5e-6


@pytest.mark.parametrize("debias", ["power", "product"])
def test_equal_bounds_are_adam_for_every_option(debias, x64):
    adam = updates_of(optax.scale_by_adam(b1=0.8, b2=0.99, eps=1e-3, eps_root=1e-3))
    for scope in ("tree", "leaf", "element"):
        tx = ox.scale_by_adasmooth(
            0.8, 0.8, 0.99, eps=1e-3, eps_root=1e-3, scope=scope, debias=debias
        )
        assert_close(updates_of(tx), adam, rtol=1e-5, atol=1e-6)


def test_literal_debiasing_overshoots_and_the_product_does_not():
    """A steady leaf beside one that alternates for four steps and then stops."""
    wild = [100.0, -100.0, 100.0, -100.0, *[-100.0] * 16]
    gradients = [{"steady": np.ones(1), "wild": np.full(1, x)} for x in wild]

    def largest(**options):
        outputs = updates_of(ox.scale_by_adasmooth(gamma=0.0, **options), gradients)
        return max(float(u["steady"][0]) for u in outputs)

    # Weight and divisor at step 5, for β1 in turn .9495, .9, .9, .9, .9495.
    expected = (1 - 0.9495**2 * 0.9**3) / (1 - 0.9495**5)
    assert largest() == pytest.approx(expected, rel=1e-5)
    assert largest(debias="product") == pytest.approx(1, rel=1e-5)
    whole = (1 - 0.999**2 * 0.9**3) / (1 - 0.999**5)
    exp = {"smoothness": lambda v: jnp.exp(-v)}
    assert largest(**exp) == pytest.approx(whole, rel=1e-4)
    assert largest(debias="product", **exp) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "documented"),
    [
        ({}, 1.11),
        ({"gamma": 0.0}, 1.5),
        ({"smoothness": lambda v: jnp.exp(-v)}, 10.0),
    ],
    ids=["default", "gamma=0", "exp"],
)
def test_documented_overshoot_of_the_literal_debiasing(options, documented):
    """The largest step of a steady leaf over when and how wildly another alternates."""
    tx = ox.scale_by_adasmooth(**options)

    def largest(size, stop):
        t = jnp.arange(120)
        wild = jnp.where(t < stop, size * (-1.0) ** t, size * (-1.0) ** (stop - 1))

        def body(state, x):
            updates, state = tx.update({"steady": jnp.ones(()), "wild": x}, state)
            return state, updates["steady"]

        start = tx.init({"steady": jnp.zeros(()), "wild": jnp.zeros(())})
        return jax.lax.scan(body, start, wild)[1].max()

    sizes, stops = jnp.geomspace(0.3, 30, 41), jnp.arange(2, 30)
    grid = jax.jit(jax.vmap(jax.vmap(largest, (None, 0)), (0, None)))(sizes, stops)
    assert float(grid.max()) == pytest.approx(documented, rel=0.04)


def test_b1_stays_below_the_middle_by_default():
    constant = [{"w": np.ones(3)}] * 5
    tx = ox.scale_by_adasmooth()
    params = {"w": jnp.zeros(3)}
    state = tx.init(params)
    for g in constant:
        _, state = tx.update(jax.tree.map(jnp.float32, g), state)
    assert float(state.variation) == 0
    # β1 is then (0.9 + 0.999) / 2, which the first moment shows.
    np.testing.assert_allclose(state.mu["w"], 1 - 0.9495**5, rtol=1e-5)


def test_normalized_variation_is_free_of_scale():
    small = updates_of(ox.scale_by_adasmooth(normalize=True, eps=0.0))
    gradients = [jax.tree.map(lambda x: 1e4 * x, g) for g in GRADIENTS]
    large = updates_of(ox.scale_by_adasmooth(normalize=True, eps=0.0), gradients)
    assert_close(large, small, rtol=1e-5, atol=1e-6)
    literal = updates_of(ox.scale_by_adasmooth(eps=0.0))
    scaled = updates_of(ox.scale_by_adasmooth(eps=0.0), gradients)
    assert np.abs(literal[9]["w"] - scaled[9]["w"]).max() > 1e-3


@pytest.mark.parametrize(("sign", "expected"), [(1, 0.0), (-1, 2.0)])
def test_normalized_variation_runs_from_steady_to_alternating(sign, expected):
    tx = ox.scale_by_adasmooth(normalize=True, gamma=0.0)
    g = jnp.ones(3)
    _, state = tx.update(g, tx.init(g))
    assert float(state.variation) == 0
    _, state = tx.update(sign * g, state)
    np.testing.assert_allclose(state.variation, expected, rtol=1e-6)


def test_an_overflow_does_not_stay_in_the_variation():
    tx = ox.scale_by_adasmooth(normalize=True)
    state = tx.init(jnp.zeros(3))
    for scale in (1.0, 1e30, -1e30, 1.0):
        updates, state = tx.update(jnp.full(3, scale), state)
        assert bool(jnp.isfinite(updates).all())
        assert 0 <= float(state.variation) <= 2
    literal = ox.scale_by_adasmooth()
    state = literal.init(jnp.zeros(3))
    for scale in (1.0, 1e30, 1.0):
        _, state = literal.update(jnp.full(3, scale), state)
        assert bool(jnp.isfinite(state.variation))


def test_second_moment_of_half_precision_does_not_stall():
    tx = ox.scale_by_adasmooth()
    params = jnp.zeros((), jnp.bfloat16)
    state = tx.init(params)
    for _ in range(200):
        _, state = tx.update(jnp.ones((), jnp.bfloat16), state)
    for _ in range(2000):
        _, state = jax.jit(tx.update)(jnp.zeros((), jnp.bfloat16), state)
    expected = (1 - 0.999**200) * 0.999**2000
    np.testing.assert_allclose(state.nu, expected, rtol=1e-3)


def test_state_bytes():
    params = {"w": jnp.zeros(1000)}

    def size(**options):
        state = ox.scale_by_adasmooth(**options).init(params)
        return sum(x.nbytes for x in jax.tree.leaves(state))

    assert size() == 3 * 4000 + 8
    assert size(debias="product") == 3 * 4000 + 12
    assert size(scope="element") == 4 * 4000 + 4
    assert size(scope="element", debias="product") == 5 * 4000 + 4


@pytest.mark.parametrize("scope", ["tree", "leaf", "element"])
def test_a_none_gradient_counts_as_unchanged(scope):
    params = {"w": jnp.ones(3), "b": jnp.ones(2)}
    tx = ox.scale_by_adasmooth(scope=scope, gamma=0.5)
    state = tx.init(params)
    for scale in (1.0, 2.0):
        grads = jax.tree.map(lambda p: scale * p, params)  # noqa: B023
        _, state = tx.update(grads, state)
    _, after = tx.update({**grads, "w": None}, state)
    expected = jax.tree.map(lambda v: 0.5 * v, state.variation)
    jax.tree.map(np.testing.assert_allclose, after.variation, expected)


def test_the_state_outlives_the_gradient():
    grads = jnp.ones(3)
    tx = ox.scale_by_adasmooth()
    _, state = tx.update(grads, tx.init(jnp.zeros(3)))
    grads.delete()  # as donating it to a later computation does
    np.testing.assert_array_equal(state.previous, 1)


def test_weight_decay_may_be_a_schedule():
    params = jnp.array([1.0, -2.0])
    rate, weights = 0.1, (0.5, 0.25, 0.0)
    scheduled = ox.adasmooth(rate, weight_decay=lambda t: jnp.array(weights)[t])
    plain = ox.adasmooth(rate)
    state, plain_state = scheduled.init(params), plain.init(params)
    for weight in weights:
        updates, state = scheduled.update(params, state, params)
        without, plain_state = plain.update(params, plain_state)
        expected = without - rate * weight * params
        np.testing.assert_allclose(updates, expected, rtol=1e-6)
    constant = ox.adasmooth(rate, weight_decay=lambda t: 0.5)
    other = ox.adasmooth(rate, weight_decay=0.5)
    np.testing.assert_array_equal(
        constant.update(params, constant.init(params), params)[0],
        other.update(params, other.init(params), params)[0],
    )


def test_weight_decay_of_a_python_float():
    tx = ox.adasmooth(0.1, weight_decay=0.5)
    updates, _ = tx.update(2.0, tx.init(4.0), 4.0)
    np.testing.assert_allclose(updates, -0.1 * (1 + 0.5 * 4), rtol=1e-5)


def test_weight_decay_is_decoupled_and_masked():
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    grads = jax.tree.map(jnp.ones_like, params)
    mask = {"w": True, "b": False}
    tx = ox.adasmooth(0.1, weight_decay=0.5, mask=mask)
    without = ox.adasmooth(0.1, mask=mask).init(params)
    assert jax.tree.structure(tx.init(params)) == jax.tree.structure(without)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 * (1 + 0.5), rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -0.1, rtol=1e-6)
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(grads, tx.init(params))
    ox.adasmooth(0.1).update(grads, without)


KEYWORDS = {
    "b1_min": 0.5,
    "b1_max": 0.95,
    "b2": 0.9,
    "gamma": 0.5,
    "eps": 1e-2,
    "eps_root": 1e-2,
    "scope": "element",
    "normalize": True,
    "smoothness": lambda v: jnp.exp(-v),
    "debias": "product",
}


@pytest.mark.daily("b1_max", "gamma", "scope", "debias")
@pytest.mark.parametrize("name", KEYWORDS)
def test_alias_passes_every_option_on(name):
    option = {name: KEYWORDS[name]}
    alias = updates_of(ox.adasmooth(0.1, **option))
    direction = ox.scale_by_adasmooth(**option)
    assert_close(
        alias, updates_of(optax.chain(direction, optax.scale(-0.1))), rtol=1e-6
    )
    assert differ(alias, updates_of(ox.adasmooth(0.1)))


def test_mu_dtype():
    params = {"r": jnp.ones(2), "c": jnp.ones(2, jnp.complex64)}
    tx = ox.adasmooth(0.1, mu_dtype=jnp.bfloat16)
    mu = optax.tree.get(tx.init(params), "mu")
    assert (mu["r"].dtype, mu["c"].dtype) == (jnp.bfloat16, jnp.complex64)
    double = ox.scale_by_adasmooth(mu_dtype="float64")  # float32 without x64, as in jax
    assert double.init(params).mu["r"].dtype == jnp.float32


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    b1=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(sorted),
    b2=st.floats(0.1, 0.999),
    gamma=st.floats(0, 0.99),
    scope=st.sampled_from(("tree", "leaf", "element")),
    normalize=st.booleans(),
    debias=st.sampled_from(("power", "product")),
    scale=st.sampled_from((1e-3, 1.0, 1e3)),
)
def test_oracle_anywhere(shape, b1, b2, gamma, scope, normalize, debias, scale):
    rng = np.random.default_rng(1)
    gradients = [
        {"w": np.float32(scale * rng.normal(size=shape)), "b": np.float32(rng.normal())}
        for _ in range(5)
    ]
    gradients = [{k: np.float64(v) for k, v in g.items()} for g in gradients]
    options = {"scope": scope, "normalize": normalize, "debias": debias}
    actual = updates_of(ox.scale_by_adasmooth(*b1, b2, gamma, **options), gradients)
    expected = oracle(gradients, *b1, b2, gamma, **options)
    assert_close(actual, expected, rtol=2e-4, atol=2e-4)


def test_smoothness_is_clipped_and_its_shape_checked():
    tx = ox.scale_by_adasmooth(0.5, 0.8, smoothness=lambda v: v + 7)
    adam = ox.scale_by_adasmooth(0.8, 0.8)
    assert_close(updates_of(tx), updates_of(adam), rtol=1e-6)
    bad = ox.scale_by_adasmooth(smoothness=lambda v: jnp.ones(3))
    with pytest.raises(ValueError, match=r"`smoothness` must keep the shape \(\)"):
        bad.update(jnp.ones(3), bad.init(jnp.ones(3)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"b1_min": 1.0}, ValueError, r"`b1_min` must be in \[0, 1\).*, got 1.0"),
        ({"b1_max": 1.5}, ValueError, r"`b1_max` must be in \[0, 1\).*, got 1.5"),
        ({"b1_min": 0.9, "b1_max": 0.8}, ValueError, "`b1_min` must be <= `b1_max`"),
        ({"b2": -0.1}, ValueError, r"`b2` must be in \[0, 1\).*, got -0.1"),
        ({"b2": 1 - 1e-9}, ValueError, "after rounding to float32"),
        ({"b2": jnp.bfloat16(0.999)}, TypeError, "`b2` must be float32 or wider"),
        ({"gamma": 2}, ValueError, r"`gamma` must be in \[0, 1\)"),
        ({"eps": -1e-8}, ValueError, "`eps` must be finite and >= 0, got -1e-08"),
        ({"eps_root": -1.0}, ValueError, "`eps_root` must be finite and >= 0"),
        ({"mu_dtype": int}, TypeError, "`mu_dtype` must be a floating-point dtype"),
        ({"scope": "all"}, ValueError, r"`scope` must be one of \('tree', 'leaf', 'el"),
        ({"debias": None}, ValueError, r"`debias` must be one of \('power', 'product"),
        ({"normalize": 0}, TypeError, "`normalize` must be True or False, got 0"),
        ({"smoothness": 1}, TypeError, "`smoothness` must be a function, got 1"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.scale_by_adasmooth(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": -0.1}, "`learning_rate` must be finite and >= 0, got -0.1"),
        ({"weight_decay": -1.0}, "`weight_decay` must be finite and >= 0, got -1.0"),
    ],
)
def test_bad_arguments_of_adasmooth(arguments, message):
    with pytest.raises(ValueError, match=message):
        ox.adasmooth(**{"learning_rate": 0.1, **arguments})


@pytest.mark.slow
def test_the_whole_range_does_not_follow_a_minimum_that_jumps():
    def falling(v):
        return jnp.exp(-v)

    def best(**options):
        make = partial(ox.adasmooth, normalize=True, debias="product", **options)
        rates = {"learning_rate": [0.01, 0.1, 0.3, 1.0]}
        result = sweep(jumping_quadratic(), make, rates, steps=500, seeds=3)
        return np.median(result.final("mean_loss"), axis=1).min()

    assert best(smoothness=falling) > 5 * best()
    assert best(smoothness=falling, b1_min=0.0, b1_max=0.99) < best()
