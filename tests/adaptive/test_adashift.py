"""AdaShift against the paper's formulas in float64, and against Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import optax_extras as ox

from adaptive.steps import GRADIENTS, STEPS, assert_close, differ, run, updates_of
from specs import spec

NUMBERS = {"b1": 0.9, "b2": 0.999, "eps": 1e-10}
DIRECTION = {**NUMBERS, "schedules": ("b1", "b2"), "supports": {"complex"}}
SPECS = [
    spec(ox.scale_by_adashift, **DIRECTION, static={"window": 2}, buffers=2),
    spec(
        ox.scale_by_adashift,
        "element",
        **DIRECTION,
        changes={"formula", "state", "sums"},
        static={"window": 2, "spatial": "element"},
        buffers=3,
    ),
    spec(
        ox.scale_by_adashift,
        "mean-of-one",
        **DIRECTION,
        changes={"formula", "state", "sums"},
        static={"window": 1, "spatial": "mean", "accumulator_dtype": jnp.float32},
        buffers=1,
    ),
    spec(
        ox.adashift,
        learning_rate=0.1,
        **NUMBERS,
        weight_decay=0.01,
        schedules=("learning_rate", "b1", "b2", "weight_decay"),
        supports={"complex", "descent"},
        changes={"formula", "state"},
        buffers=10,
    ),
]

SPATIAL = {"max": np.max, "mean": np.mean, "element": lambda x: x}


def oracle(gradients, b1=0.9, b2=0.999, eps=1e-10, window=10, spatial="max"):
    """The paper's equations in float64; the decays are numbers, or one of each step."""
    n, outputs = window, []
    b1, b2 = (np.broadcast_to(b, len(gradients)) for b in (b1, b2))
    v, kept = 0.0, 1.0
    for t in range(len(gradients)):
        if t < n:
            outputs.append(np.zeros_like(gradients[0]))
            continue
        weights = b1[t] ** np.arange(n)
        m = sum(w * gradients[t - i] for i, w in enumerate(weights)) / weights.sum()
        v = b2[t] * v + (1 - b2[t]) * SPATIAL[spatial](gradients[t - n] ** 2)
        kept *= b2[t]
        outputs.append(m / (np.sqrt(v / (1 - kept)) + eps))
    return outputs


def oracles(gradients, **options):
    """The same for each leaf."""
    by_leaf = {k: oracle([g[k] for g in gradients], **options) for k in gradients[0]}
    return [{k: u[t] for k, u in by_leaf.items()} for t in range(len(gradients))]


OPTIONS = [
    {"window": window, "spatial": spatial}
    for window in (1, 3, 10)
    for spatial in SPATIAL
]
OPTIONS += [{"b1": 0.0, "b2": 0.0, "window": 4}, {"b1": 1.0, "b2": 0.5, "eps": 0.1}]


@pytest.mark.daily(
    "{'window': 10*", "{'b1': 1.0*", "{'window': 1, *mean*", "{'b1': 0.0*"
)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_oracle(options, x64):
    tx = ox.scale_by_adashift(**options)
    actual = updates_of(tx, dtype=jnp.float64)
    assert_close(actual, oracles(GRADIENTS, **options), rtol=1e-11)
    with jax.enable_x64(False):
        single = updates_of(tx)
    assert_close(single, oracles(GRADIENTS, **options), rtol=2e-4, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    b1=st.floats(0, 1),
    b2=st.floats(0, 0.999),
    window=st.integers(1, 6),
    spatial=st.sampled_from(("max", "element")),
    scale=st.sampled_from((1e-3, 1.0, 1e3)),
)
def test_oracle_anywhere(shape, b1, b2, window, spatial, scale):
    rng = np.random.default_rng(1)
    gradients = [
        {"w": np.float64(np.float32(scale * rng.normal(size=shape)))} for _ in range(9)
    ]
    if not np.prod(shape):
        spatial = "element"  # NumPy has no maximum of nothing
    options = {"b1": b1, "b2": b2, "window": window, "spatial": spatial}
    actual = updates_of(ox.scale_by_adashift(**options), gradients)
    assert_close(actual, oracles(gradients, **options), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("spatial", SPATIAL)
def test_decays_may_vary(spatial, x64):
    b1, b2 = np.linspace(0.9, 0.2, STEPS), np.linspace(0.5, 0.99, STEPS)
    tx = ox.scale_by_adashift(
        lambda t: jnp.asarray(b1)[t],
        lambda t: jnp.asarray(b2)[t],
        window=4,
        spatial=spatial,
    )
    expected = oracles(GRADIENTS, b1=b1, b2=b2, window=4, spatial=spatial)
    assert_close(updates_of(tx, dtype=jnp.float64), expected, rtol=1e-11)


def test_a_constant_gradient_is_scaled_to_one_whatever_the_decays_do(x64):
    tx = ox.scale_by_adashift(
        lambda t: 0.5 + 0.4 * jnp.sin(t), lambda t: 0.9 + 0.09 * jnp.cos(t), window=3
    )
    found = updates_of(tx, [{"w": np.full(2, -0.3)}] * 12, jnp.float64)
    assert_close(found[3:], [{"w": -np.ones(2)}] * 9, rtol=1e-9)


def adam_of(b1, b2):
    """Debiased first moments, and roots of debiased second ones, of optax's Adam."""
    state = optax.scale_by_adam().init(GRADIENTS[0])
    means, roots = [], []
    for t, g in enumerate(GRADIENTS, start=1):
        _, state = optax.scale_by_adam(b1, b2).update(g, state)
        means.append(jax.tree.map(lambda m: m / (1 - b1**t), state.mu))  # noqa: B023
        roots.append(jax.tree.map(lambda v: jnp.sqrt(v / (1 - b2**t)), state.nu))  # noqa: B023
    return means, roots


@pytest.mark.parametrize(("window", "b1"), [(1, 0.0), (20, 0.2)])
def test_by_element_it_divides_by_the_denominator_that_adam_had_before(window, b1, x64):
    """And the numerator is Adam's, up to b1ⁿ, which is nothing here."""
    means, roots = adam_of(b1, 0.99)
    expected = [
        jax.tree.map(lambda m, v: m / v, means[t], roots[t - window])
        for t in range(window, STEPS)
    ]
    tx = ox.scale_by_adashift(b1, 0.99, 0.0, window=window, spatial="element")
    found = updates_of(tx, dtype=jnp.float64)
    assert_close(found[window:], expected, rtol=1e-9)


def test_equal_gradients_are_one_block():
    """Of a leaf of one element, all reductions are the same."""
    gradients = [{"w": g["b"][:1]} for g in GRADIENTS]
    one, *others = (
        updates_of(ox.scale_by_adashift(spatial=s, window=3), gradients)
        for s in SPATIAL
    )
    for other in others:
        assert_close(other, one, rtol=1e-6)


@pytest.mark.parametrize("spatial", SPATIAL)
def test_nothing_moves_before_there_is_a_scale(spatial):
    """The first gradients of an embedding may be zero for longer than a window."""
    values = [0.0] * 5 + [1.0, 2.0, 3.0, 4.0]
    gradients = [{"w": np.full(2, x)} for x in values]
    tx = ox.scale_by_adashift(0.0, window=2, spatial=spatial)
    found = [float(u["w"][0]) for u in updates_of(tx, gradients)]
    assert found[:7] == [0] * 7
    # Only the oldest gradient that is not zero is in v, by the weight of five steps.
    weight = (1 - 0.999) / (1 - 0.999**6)
    np.testing.assert_allclose(found[7], 3 / np.sqrt(weight), rtol=1e-4)


def test_gradients_whose_squares_are_zero_move_nothing():
    tx = ox.scale_by_adashift(window=1, spatial="element")
    found = updates_of(tx, [{"w": np.full(2, x)} for x in (1e-25, 1e-25, 1.0)])
    assert all((u["w"] == 0).all() for u in found)


def test_it_converges_where_adam_does_not():
    """A large gradient is rare, and small ones have the other sign; the mean is 0.3.

    The problem is the paper's, on [−1, 1], with a larger mean.
    """
    large, delta, steps = 101.0, 0.3, 30_000
    is_large = np.random.default_rng(0).random((steps, 8)) < (1 + delta) / (large + 1)
    gradients = jnp.where(is_large, large, -1.0).astype(jnp.float32)

    def last(tx):
        def step(carry, g):
            x, state = carry
            update, state = tx.update(g, state)
            return (jnp.clip(x + update, -1, 1), state), None

        x = jnp.zeros(8)
        (x, _), _ = jax.lax.scan(step, (x, tx.init(x)), gradients)
        return np.asarray(x)

    rate = 1e-3
    adam = last(optax.adam(rate, b1=0.0, b2=0.9))
    shifted = last(ox.adashift(rate, b1=0.0, b2=0.9, window=1, spatial="element"))
    assert (adam > 0.9).all()
    assert (shifted < -0.6).all()


def sharded(kind):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    return jax.device_put(jnp.ones((3, 16)), NamedSharding(mesh, P(None, "x")))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spatial", SPATIAL)
def test_the_window_is_sharded_as_its_parameter(kind, spatial):
    params = sharded(kind)
    tx = ox.scale_by_adashift(window=5, spatial=spatial)
    with jax.set_mesh(params.sharding.mesh):
        state = tx.init(params)
        _, after = jax.jit(tx.update)(params, state)
    expected = NamedSharding(params.sharding.mesh, P(None, None, "x"))
    for window in (state.window, after.window):
        assert window.shape == (5, 3, 16)
        assert window.sharding.is_equivalent_to(expected, 3)


def test_a_step_of_shards_moves_one_number_between_them():
    params = sharded(AxisType.Auto)
    tx = ox.scale_by_adashift(spatial="max")
    state = tx.init(params)
    text = jax.jit(tx.update).lower(params, state).compile().as_text()
    assert text.count(" all-reduce(") == 1
    assert not any(word in text for word in ("all-gather(", "all-to-all("))


def test_the_window_turns():
    tx = ox.scale_by_adashift(window=3)
    state = tx.init(jnp.zeros(()))
    for value in range(1, 8):
        _, state = tx.update(jnp.float32(value), state)
    np.testing.assert_array_equal(state.window, [7, 5, 6])
    np.testing.assert_array_equal(state.squares, [49, 25, 36])


def test_another_count_does_not_turn_the_window():
    """Loops that restart a schedule set the count."""
    tx = ox.scale_by_adashift(window=4, spatial="element")
    _, state = run(tx, GRADIENTS[:7])
    grads = jax.tree.map(jnp.float32, GRADIENTS[7])
    expected, _ = tx.update(grads, state)
    found, _ = tx.update(grads, optax.tree.set(state, count=jnp.int32(0)))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("spatial", SPATIAL)
def test_a_leaf_without_a_gradient_keeps_its_window(spatial):
    tx = ox.scale_by_adashift(window=3, spatial=spatial)
    _, state = run(tx, GRADIENTS[:5])
    grads = jax.tree.map(jnp.float32, GRADIENTS[5])
    _, after = tx.update({**grads, "w": None}, state)
    for name in ("window", "nu", "squares"):
        old, new = getattr(state, name), getattr(after, name)
        if old is not None:
            np.testing.assert_array_equal(new["w"], old["w"])
            assert (new["b"] != old["b"]).any()


def test_a_narrow_window(x64):
    """It takes half of the memory, and the mean is of what it holds."""
    tx = ox.scale_by_adashift(window=3, accumulator_dtype=jnp.bfloat16)
    found, state = run(tx, dtype=jnp.float64)
    assert state.window["w"].dtype == jnp.bfloat16
    assert state.nu["w"].dtype == jnp.float64
    rounded = [
        {k: np.float64(np.asarray(v, jnp.bfloat16)) for k, v in g.items()}
        for g in GRADIENTS
    ]
    own, wide = oracles(rounded, window=3), oracles(GRADIENTS, window=3)
    scale = np.max([np.abs(u["w"]).max() for u in wide])
    assert_close(found, wide, atol=1e-2 * scale)
    # The squares are those of the gradients, which differ in eight bits.
    assert_close(found, own, rtol=2e-2)
    complex_leaf = tx.init(jnp.ones(2, jnp.complex64)).window
    assert complex_leaf.dtype == jnp.complex64


def test_state_bytes():
    params = {"w": jnp.zeros(1000)}

    def size(**options):
        state = ox.scale_by_adashift(window=3, **options).init(params)
        return sum(x.nbytes for x in jax.tree.leaves(state))

    assert size() == 3 * 4000 + 12 + 4 * 4
    assert size(spatial="element") == 4 * 4000 + 12
    assert size(accumulator_dtype=jnp.bfloat16) == 3 * 2000 + 12 + 4 * 4


@pytest.mark.skipif(
    jax.__version_info__ < (0, 12), reason="older versions of XLA:CPU move more"
)
def test_a_long_step_is_written_in_place():
    """With the defaults a step writes one tenth of the window, and copies nothing."""
    leaf = jax.ShapeDtypeStruct((512, 512), jnp.float32)
    tx = ox.adashift(0.1)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, leaf)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(leaf, state, leaf).compile()
    # It reads the gradient twice, and a parameter and ten places; and writes two.
    assert compiled.cost_analysis()["bytes accessed"] / leaf.size < 4 * (2 + 1 + 10 + 3)


KEYWORDS = {
    "b1": 0.5,
    "b2": 0.5,
    "eps": 0.1,
    "window": 3,
    "spatial": "element",
    "accumulator_dtype": jnp.bfloat16,
}


@pytest.mark.daily("b1", "window", "spatial")
@pytest.mark.parametrize("name", KEYWORDS)
def test_alias_passes_every_option_on(name):
    option = {name: KEYWORDS[name]}
    alias = updates_of(ox.adashift(0.1, **option))
    direction = ox.scale_by_adashift(**option)
    chained = updates_of(optax.chain(direction, optax.scale(-0.1)))
    assert_close(alias, chained, rtol=1e-6)
    assert differ(alias, updates_of(ox.adashift(0.1)))


def test_weight_decay_is_decoupled_and_masked():
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    tx = ox.adashift(0.1, weight_decay=0.5, mask={"w": True, "b": False})
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], 0)
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"b1": 1.1}, ValueError, r"`b1` must be in \[0, 1\], got 1.1"),
        ({"b2": 1.0}, ValueError, r"`b2` must be in \[0, 1\).*, got 1.0"),
        ({"b2": jnp.bfloat16(0.999)}, TypeError, "`b2` must be float32 or wider"),
        ({"eps": -1e-8}, ValueError, "`eps` must be finite and >= 0, got -1e-08"),
        ({"window": 0}, ValueError, "`window` must be >= 1, got 0"),
        ({"window": 2.0}, TypeError, "`window` must be an int, got 2.0"),
        ({"window": True}, TypeError, "`window` must be an int, got True"),
        ({"spatial": "min"}, ValueError, r"`spatial` must be one of \('max', 'mean', "),
        ({"accumulator_dtype": int}, TypeError, "`accumulator_dtype` must be a float"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.scale_by_adashift(**arguments)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
def test_bad_arguments_of_adashift(name):
    with pytest.raises(ValueError, match=f"`{name}` must be finite and >= 0, got -0.1"):
        ox.adashift(**{"learning_rate": 0.1, name: -0.1})


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"w": jnp.ones((3, 2))}, ValueError, r"got \(3, 2\) at \['w'\], the state ha"),
        ({"v": jnp.ones((2, 3))}, ValueError, r"\['v'\] is only in `updates`"),
        (
            {"w": jnp.ones((2, 3), int)},
            TypeError,
            r"floating-point or complex.*\['w'\]",
        ),
    ],
)
def test_bad_gradients(bad, error, message):
    tx = ox.scale_by_adashift()
    with pytest.raises(error, match=message):
        tx.update(bad, tx.init({"w": jnp.ones((2, 3))}))


def test_bad_parameters():
    with pytest.raises(TypeError, match="floating-point or complex"):
        ox.scale_by_adashift().init({"w": jnp.ones(2, int)})


@pytest.mark.parametrize("spatial", ["max", "mean"])
def test_a_gradient_whose_square_overflows_does_not_stop_a_leaf(spatial):
    tx = ox.scale_by_adashift(b2=0.5, window=2, spatial=spatial)
    params = jnp.ones(3)
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(300):
        scale = jnp.where(step == 3, jnp.array([1e25, 1, 1]), 1.0)
        updates, state = update(scale * params, state)
    np.testing.assert_allclose(updates, 1, rtol=1e-5)
