"""Learning rates, weight decay and freezing by rules."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras import Rule

from specs import SHARED_DRAW, spec

# Every pattern matches each tree of the checks.
RULES = {".*": Rule(lr_multiplier=0.7, weight_decay=0.05, frozen_until=1)}
NUMBERS = {"learning_rate": 0.1, "weight_decay": 0.01}


def around_noise(learning_rate, weight_decay, key):
    """Rules around a transformation that draws."""
    noise = ox.add_decayed_noise(0.01, key=key)
    return ox.with_rules(noise, learning_rate, {}, weight_decay=weight_decay)


ANOTHER_DTYPE = {
    "gradients_of_another_dtype": "the buffers of optax take the gradients' dtype"
}
SPECS = [
    spec(
        ox.with_rules,
        **NUMBERS,
        static={"inner": optax.scale_by_adam(), "rules": {".*": Rule(0.7)}},
        buffers=2,
        schedules=("learning_rate", "weight_decay"),
        supports={"complex", "descent"},
        expected_failures={
            **ANOTHER_DTYPE,
            "strict_dtype_promotion": "optax.scale_by_adam raises a float to an int32",
            "zero_gradients_in_half_precision": "eps of optax.scale_by_adam is 0 there",
        },
    ),
    spec(
        ox.with_rules,
        "trace",
        **NUMBERS,
        static={"inner": optax.trace(0.9), "rules": RULES},
        buffers=1,
        schedules=("learning_rate", "weight_decay"),
        supports={"complex", "complex_as_real", "descent"},
        changes={"formula", "state"},
        expected_failures=ANOTHER_DTYPE,
    ),
    dataclasses.replace(
        spec(
            ox.with_rules,
            "noise",
            **NUMBERS,
            temporaries=SHARED_DRAW,
            schedules=("learning_rate", "weight_decay"),
            supports={"random", "complex", "descent"},
            changes={"formula", "state", "draws"},
        ),
        make=around_noise,
    ),
]

RNG = np.random.default_rng(0)


def random_tree(seed=0):
    """Nested dictionaries and lists."""
    rng = np.random.default_rng(seed)
    shapes = {
        "embed": (5, 3),
        "layers": [{"w": (3, 3), "b": (3,)} for _ in range(4)],
        "head": {"w": (3, 2), "b": (2,), "scale": ()},
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


PARAMS = random_tree()


def path_of(path):
    return jax.tree_util.keystr(path, simple=True, separator="/")


def by_path(tree):
    return {path_of(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(tree)}


def compiled(tx):
    """A step."""

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def train(tx, steps, params=PARAMS, state=None, start=0, step=None):
    """Parameters and state after some steps on the gradients of these steps."""
    state = tx.init(params) if state is None else state
    step = compiled(tx) if step is None else step
    for t in range(start, start + steps):
        grads = random_tree(100 + t)
        params, state = step(params, state, {name: grads[name] for name in params})
    return params, state


def same(actual, expected, rtol=0.0, atol=0.0):
    for path, x in by_path(expected).items():
        np.testing.assert_allclose(by_path(actual)[path], x, rtol, atol, err_msg=path)


def linear(count):
    return 0.2 / (1 + count)


def rising(count):
    return 0.1 * (1 + jnp.asarray(count, jnp.float32))


ALL = ("embed", *(f"layers/{i}/{n}" for i in range(4) for n in "bw"))
ALL = (*ALL, "head/b", "head/scale", "head/w")
BIASES = tuple(path for path in ALL if path.endswith("/b"))
FROZEN = None
# Rules, rate and decay; and the same as (multiplier, decay) or FROZEN by path.
RULE_SETS = {
    "no rules": ({}, 0.1, 0.0, {}),
    "one multiplier": ({"head/.*": Rule(3.0)}, 0.1, 0.0, {"head/": (3.0, 0.0)}),
    "decay of all": ({}, 0.1, 0.3, {"": (1.0, 0.3)}),
    "no decay of biases": (
        {r".*/b": Rule(weight_decay=0.0)},
        0.1,
        0.3,
        {"": (1.0, 0.3), **dict.fromkeys(BIASES, (1.0, 0.0))},
    ),
    "frozen body": (
        {"head/.*": Rule(), ".*": Rule(frozen_until=math.inf)},
        0.1,
        0.2,
        {"": FROZEN, "head/": (1.0, 0.2)},
    ),
    "the first match counts": (
        [("layers/0/.*", Rule(0.5, 0.1)), ("layers/.*", Rule(2.0))],
        0.05,
        0.0,
        {"layers/": (2.0, 0.0), "layers/0/": (0.5, 0.1)},
    ),
    "schedules": (
        {"embed": Rule(rising), "head/w": Rule(2.0, weight_decay=rising)},
        linear,
        0.1,
        {"": (1.0, 0.1), "embed": (rising, 0.1), "head/w": (2.0, rising)},
    ),
    "a schedule of the decay": (
        {"embed": Rule(0.0)},
        0.1,
        rising,
        {"": (1.0, rising), "embed": (0.0, rising)},
    ),
    "decay by depth": (
        [ox.layerwise_decay(r"layers/(\d+)/.*", 0.8)],
        linear,
        0.1,
        {"": (1.0, 0.1), **{f"layers/{i}/": (0.8 ** (3 - i), 0.1) for i in range(4)}},
    ),
    "decay by depth, and frozen embeddings": (
        [
            ("embed", Rule(frozen_until=math.inf)),
            ox.layerwise_decay(r"layers/(\d+)/w", 0.5, weight_decay=0.2),
            ox.layerwise_decay(r"layers/(\d+)/.*", 0.5),
        ],
        0.1,
        0.0,
        {
            "embed": FROZEN,
            **{f"layers/{i}/b": (0.5 ** (3 - i), 0.0) for i in range(4)},
            **{f"layers/{i}/w": (0.5 ** (3 - i), 0.2) for i in range(4)},
        },
    ),
    "zero and a 0-d array": (
        {"embed": Rule(0.0), "head/.*": Rule(jnp.float32(2), np.float32(0.1))},
        np.float32(0.1),
        jnp.float32(0.2),
        {"": (1.0, 0.2), "embed": (0.0, 0.2), "head/": (2.0, 0.1)},
    ),
}


def at(value, count):
    return value(count) if callable(value) else value


def numbers_of(expected, path):
    """Those of the longest prefix of the path."""
    prefixes = [prefix for prefix in expected if path.startswith(prefix)]
    return expected[max(prefixes, key=len)] if prefixes else (1.0, 0.0)


def partitioned(inner, rate, expected):
    """The same as an `optax.partition`, with a group for each pair of numbers."""
    labels = jax.tree.map_with_path(
        lambda path, _: str(numbers_of(expected, path_of(path))), PARAMS
    )

    def group(numbers):
        if numbers is FROZEN:
            return optax.set_to_zero()
        multiplier, decay = numbers
        if callable(decay):  # `optax.add_decayed_weights` takes numbers
            add = optax.inject_hyperparams(optax.add_decayed_weights)(decay)
        else:
            add = optax.add_decayed_weights(decay)
        return optax.chain(
            inner(),
            add,
            optax.scale_by_learning_rate(
                lambda count: at(rate, count) * at(multiplier, count)
            ),
        )

    groups = [numbers_of(expected, path) for path in ALL]
    return optax.partition({str(numbers): group(numbers) for numbers in groups}, labels)


@functools.cache
def trained(name):
    """The parameters after 6 and after 20 steps with a set of rules."""
    rules, rate, decay, _ = RULE_SETS[name]
    tx = ox.with_rules(optax.scale_by_adam(), rate, rules, weight_decay=decay)
    step = compiled(tx)
    early, state = train(tx, 6, step=step)
    late, _ = train(tx, 14, early, state, 6, step=step)
    return early, late


@pytest.mark.daily(
    "decay by depth, and frozen embeddings",
    "no decay of biases",
    "schedules",
    "zero and a 0-d array",
    "the first match counts",
)
@pytest.mark.parametrize("name", RULE_SETS)
def test_equal_to_partition(name):
    _, rate, _, expected = RULE_SETS[name]
    actual, _ = trained(name)
    wanted, _ = train(partitioned(optax.scale_by_adam, rate, expected), 6)
    same(actual, wanted, 1e-6, 1e-6)
    moved = [
        p for p in ALL if not np.array_equal(by_path(actual)[p], by_path(PARAMS)[p])
    ]
    still = {p for p in ALL if (numbers_of(expected, p) or (0,))[0] == 0}
    assert set(moved) == set(ALL) - still


def test_bit_for_bit_equal_to_partition_where_the_arithmetic_is_the_same():
    rules = {"embed": Rule(frozen_until=math.inf), "head/.*": Rule(0.5)}
    tx = ox.with_rules(optax.scale_by_adam(), 0.25, rules)
    expected = {"": (1.0, 0.0), "embed": FROZEN, "head/": (0.5, 0.0)}
    wanted, _ = train(partitioned(optax.scale_by_adam, 0.25, expected), 5)
    same(train(tx, 5)[0], wanted)


@pytest.mark.daily(
    "decay by depth, and frozen embeddings",
    "a schedule of the decay",
    "zero and a 0-d array",
    "the first match counts",
)
@pytest.mark.parametrize("name", RULE_SETS)
def test_oracle(name):
    """Adam in float64, leaf by leaf."""
    _, rate, _, expected = RULE_SETS[name]
    _, actual = trained(name)
    for path, start in by_path(PARAMS).items():
        theta, numbers = start.astype(np.float64), numbers_of(expected, path)
        m, v = np.zeros_like(theta), np.zeros_like(theta)
        for t in range(20 if numbers is not FROZEN else 0):
            g = by_path(random_tree(100 + t))[path].astype(np.float64)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            hat = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
            direction = hat[0] / (np.sqrt(hat[1]) + 1e-8)
            multiplier, weight = (float(at(number, t)) for number in numbers)
            theta -= float(at(rate, t)) * multiplier * (direction + weight * theta)
        np.testing.assert_allclose(
            by_path(actual)[path], theta, 2e-5, 2e-5, err_msg=path
        )


@pytest.mark.parametrize("until", [3, np.int64(3), jnp.int32(3), np.array([[3]])])
def test_frozen_until_a_step(until):
    """Bit for bit; then the moments of all earlier gradients count."""
    params = {"embed": PARAMS["embed"], "head": PARAMS["head"]}
    rules = {"head/w": Rule(frozen_until=until)}
    tx = ox.with_rules(optax.scale_by_adam(), 0.1, rules, weight_decay=0.1)
    free = ox.with_rules(optax.scale_by_adam(), 0.1, {}, weight_decay=0.1)
    step = compiled(tx)
    before, state = train(tx, 3, params, step=step)
    for path, x in by_path(before).items():
        assert np.array_equal(x, by_path(params)[path]) == (path == "head/w"), path
    _, free_state = train(free, 3, params)
    same(state, free_state)
    grads = {name: random_tree(200)[name] for name in params}
    after, _ = step(before, state, grads)
    updates, _ = free.update(grads, free_state, before)
    same(after, optax.apply_updates(before, updates), 1e-6, 1e-7)


def test_nothing_changes_a_frozen_parameter():
    params = {"w": jnp.array([-0.0, 0.0, jnp.nan, 1e-30])}
    for until in (math.inf, 2**31, 5, jnp.int32(2**31 - 1), np.array(2**40)):
        tx = ox.with_rules(optax.identity(), 0.1, {"w": Rule(frozen_until=until)})
        state = tx.init(params)
        if until != 5:  # a count stays at its end
            state = state._replace(count=jnp.int32(2**31 - 1))
        grads = {"w": jnp.array([1.0, jnp.nan, jnp.inf, 0.0])}
        updates, _ = tx.update(grads, state, params)
        after = optax.apply_updates(params, updates)["w"]
        assert np.asarray(after).tobytes() == np.asarray(params["w"]).tobytes()


def test_a_clip_around_all_leaves_has_one_norm():
    """What `clip_by_global_norm(1)` emits, inside groups and inside rules."""
    params = {"body": jnp.ones(4), "head": jnp.ones(3)}
    grads = jax.tree.map(lambda p: 100 * p, params)

    def chain():
        return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))

    groups = optax.partition(
        {"body": chain(), "head": chain()}, {"body": "body", "head": "head"}
    )
    rules = ox.with_rules(
        optax.clip_by_global_norm(1.0), 1.0, {"body": Rule(), "head": Rule()}
    )
    for tx, norm in ((groups, math.sqrt(2)), (rules, 1.0)):
        updates, _ = tx.update(grads, tx.init(params), params)
        assert float(optax.tree.norm(updates)) == pytest.approx(norm, rel=1e-5)


def test_arrays_for_stacked_layers():
    """A leaf of stacked layers is what the layers one by one are."""
    layers = [random_tree(i)["layers"][0] for i in range(3)]
    stack = jax.tree.map(lambda *x: jnp.stack(x), *layers)
    multipliers, decays = np.array([0.25, 0.5, 1.0]), jnp.array([0.0, 0.1, 0.2])
    untils = np.array([2, 1, 0])
    shape = {"w": (3, 1, 1), "b": (3, 1)}
    one = ox.with_rules(
        optax.scale_by_adam(),
        0.1,
        {
            name: Rule(*(x.reshape(shape[name]) for x in (multipliers, decays, untils)))
            for name in "wb"
        },
    )
    many = ox.with_rules(
        optax.scale_by_adam(),
        0.1,
        {
            f"{i}/.*": Rule(multipliers[i], float(decays[i]), int(untils[i]))
            for i in range(3)
        },
    )
    states = one.init(stack), many.init(layers)
    for step in range(4):
        grads = jax.tree.map(lambda x, step=step: jnp.sin(x + step), stack)
        updates, first = one.update(grads, states[0], stack)
        parts = [jax.tree.map(lambda x, i=i: x[i], grads) for i in range(3)]
        others, second = many.update(parts, states[1], layers)
        states = first, second
        for i in range(3):
            same(jax.tree.map(lambda x, i=i: x[i], updates), others[i], 1e-6, 1e-8)
        stack = optax.apply_updates(stack, updates)
        layers = optax.apply_updates(layers, others)


def test_an_array_of_fewer_axes_is_for_the_last_ones():
    params = {"w": jnp.ones((2, 3))}
    tx = ox.with_rules(optax.identity(), 1.0, {"w": Rule(np.array([1.0, 2, 3]))})
    updates, _ = tx.update(params, tx.init(params))
    np.testing.assert_array_equal(updates["w"], [[-1, -2, -3]] * 2)


def test_complex_leaves_with_arrays():
    params = {"w": jnp.array([[1 + 1j], [2 - 1j]])}
    rule = Rule(np.array([[1.0], [2.0]]), 0.5, np.array([[0], [1]]))
    tx = ox.with_rules(optax.identity(), 1.0, {"w": rule})
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["w"], [[-1.5 - 1.5j], [0]])
    assert updates["w"].dtype == jnp.complex64


def test_rounded_once():
    """−0.1·0.7·(g + 0.01·p) in float32, and then in bfloat16."""
    g, p = (jnp.asarray(RNG.normal(size=1000), jnp.bfloat16) for _ in range(2))
    tx = ox.with_rules(optax.identity(), 0.1, {"": Rule(0.7)}, weight_decay=0.01)
    updates, _ = tx.update(g, tx.init(p), p)
    wide = [np.asarray(x, np.float32) for x in (g, p)]
    expected = (
        -np.float32(0.1) * np.float32(0.7) * (wide[0] + np.float32(0.01) * wide[1])
    )
    assert updates.dtype == jnp.bfloat16
    error = np.abs(np.asarray(updates, np.float32) - expected)
    assert (error <= np.abs(expected) * 2**-8).all()  # twice that, if rounded twice


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_shardings_are_kept(kind):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    spec_of = {"layers": P("x", None, "y"), "head": P(None, "x")}
    params = {"layers": jnp.ones((4, 3, 2)), "head": jnp.ones((3, 8))}
    rules = [
        ox.layerwise_decay(
            "layers", 0.5, axis=0, frozen_until=np.arange(4)[:, None, None]
        ),
        ("head", Rule(2.0, np.linspace(0, 1, 8))),
    ]
    tx = ox.with_rules(optax.scale_by_adam(), 0.1, rules, weight_decay=0.1)
    expected, _ = tx.update(params, tx.init(params), params)
    with jax.set_mesh(mesh):
        sharded = {
            name: jax.device_put(x, NamedSharding(mesh, spec_of[name]))
            for name, x in params.items()
        }
        state = tx.init(sharded)
        updates, after = jax.jit(tx.update)(sharded, state, sharded)
        for name, x in updates.items():
            assert x.sharding.is_equivalent_to(sharded[name].sharding, x.ndim), name
            moment = after.inner_state.mu[name]
            assert moment.sharding.is_equivalent_to(sharded[name].sharding, x.ndim)
        same(updates, expected, 1e-6)
        tree = ox.resolve_rules(rules, sharded, weight_decay=0.1)
        updates, _ = jax.jit(tx.update)(sharded, state, sharded, rules=tree)
        same(updates, expected, 1e-6)
        for name, x in updates.items():
            assert x.sharding.is_equivalent_to(sharded[name].sharding, x.ndim), name


def test_without_parameters():
    """They are not needed where nothing decays, though a gradient is None."""
    params = {"a": jnp.ones(2), "b": jnp.ones(2), "c": None}
    rules = {"a": Rule(0.5), "b": Rule(frozen_until=9, weight_decay=0.0)}
    tx = ox.with_rules(optax.identity(), 1.0, rules, require_all=True)
    updates, _ = tx.update({**params, "b": None}, tx.init(params))
    np.testing.assert_array_equal(updates["a"], -0.5)
    assert updates["b"] is updates["c"] is None
    decayed = ox.with_rules(optax.identity(), 1.0, {"a": Rule(weight_decay=0.1)})
    with pytest.raises(
        ValueError, match="`params` must be given to `update` with `wei"
    ):
        decayed.update(params, decayed.init(params))
    frozen = {".*": Rule(frozen_until=math.inf)}
    still = ox.with_rules(optax.identity(), 1.0, frozen, weight_decay=0.1)
    updates, _ = still.update(params, still.init(params))
    np.testing.assert_array_equal(updates["a"], 0)


def test_extra_arguments_reach_what_is_inside():
    seen = []

    def update(updates, state, params=None, **extra):
        seen.append(extra)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda p: (), update)
    tx = optax.chain(ox.with_rules(inner, 0.1, {}))
    tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=3)
    assert seen == [{"value": 3}]


def test_inside_masked_and_partition():
    """There, only the paths of the group are known."""
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    ruled = ox.with_rules(optax.identity(), 1.0, {"a": Rule(0.5)})
    tree = ox.resolve_rules({"a": Rule(0.25)}, params, weight_decay=0.0)
    for tx in (
        optax.masked(ruled, {"a": True, "b": False}),
        optax.partition({"x": ruled, "y": optax.set_to_zero()}, {"a": "x", "b": "y"}),
    ):
        for extra, expected in (({}, -0.5), ({"rules": tree}, -0.25)):
            updates, _ = tx.update(params, tx.init(params), params, **extra)
            np.testing.assert_array_equal(updates["a"], expected)


def test_rules_of_an_iterator_are_kept():
    pairs = iter([("a", Rule(0.5))])
    tx = ox.with_rules(optax.identity(), 1.0, pairs)
    for _ in range(2):
        updates, _ = tx.update({"a": jnp.ones(1)}, tx.init({"a": jnp.ones(1)}))
        np.testing.assert_array_equal(updates["a"], -0.5)


def test_an_array_that_changes_later_does_no_harm():
    multiplier = np.array([1.0, 2.0])
    tx = ox.with_rules(optax.identity(), 1.0, {"": Rule(multiplier)})
    multiplier[:] = 7
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    np.testing.assert_array_equal(updates, [-1, -2])


def test_patterns_that_choose_nothing():
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(2), "n": None}}
    for rules, message in (
        ({"a": Rule(), "b": Rule()}, "'b' chooses none: the paths are 'a', 'b/c'"),
        ([(".*", Rule()), ("a", Rule())], "'a' chooses none: an earlier pattern"),
        ({"b/n": Rule()}, "'b/n' chooses none"),
    ):
        tx = ox.with_rules(optax.identity(), 1.0, rules)
        with pytest.raises(ValueError, match=message):
            tx.init(params)
        state = ox.with_rules(optax.identity(), 1.0, {}).init(params)
        with pytest.raises(ValueError, match=message):
            tx.update(params, state, params)


def test_leaves_without_a_pattern():
    params = {"a": jnp.ones(2), "b": [jnp.ones(2)], "c": jnp.ones(1), "n": None}
    tx = ox.with_rules(optax.identity(), 1.0, {"c": Rule()}, require_all=True)
    with pytest.raises(
        ValueError, match=r"must match each leaf, but none matches 'a', 'b/0'$"
    ):
        tx.init(params)
    ox.with_rules(optax.identity(), 1.0, {"[abc].*": Rule()}, require_all=True).init(
        params
    )


WRONG = [
    (
        Rule(-1),
        ValueError,
        "`lr_multiplier` of the rule 'head/.*' must be finite and >= 0, got -1$",
    ),
    (
        Rule(math.inf),
        ValueError,
        "`lr_multiplier` of the rule 'head/.*' must be finite",
    ),
    (
        Rule(np.array([1.0, -2.0])),
        ValueError,
        "'head/.*' must be finite and >= 0, got -2",
    ),
    (Rule(np.array([1.0, np.nan])), ValueError, "must be finite and >= 0, got nan"),
    (Rule(True), TypeError, "`lr_multiplier` of the rule 'head/.*' must be a real num"),
    (Rule("fast"), TypeError, "must be a real number, got 'fast'"),
    (
        Rule(np.array([True])),
        TypeError,
        "must be a real number or an array of them, got",
    ),
    (
        Rule(weight_decay=-0.1),
        ValueError,
        "`weight_decay` of the rule 'head/.*' must be",
    ),
    (Rule(weight_decay=jnp.ones(2, bool)), TypeError, "`weight_decay` of the rule"),
    (
        Rule(frozen_until=-1),
        ValueError,
        "`frozen_until` of the rule 'head/.*' must be >= 0, got -1",
    ),
    (Rule(frozen_until=1.5), TypeError, "must be an integer >= 0, an array of them or"),
    (Rule(frozen_until=True), TypeError, "an array of them or `math.inf`, got True"),
    (Rule(frozen_until=np.array([3, -2])), ValueError, "must be >= 0, got -2"),
    (Rule(frozen_until=jnp.ones(2)), TypeError, "`math.inf`, got dtype float32"),
]


@pytest.mark.parametrize(("rule", "error", "message"), WRONG)
def test_numbers_are_checked(rule, error, message):
    with pytest.raises(error, match=message.replace("*", r"\*")):
        ox.with_rules(optax.identity(), 1.0, {"head/.*": rule})


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        (3, TypeError, "`rules` must be a mapping from patterns to `Rule`, or pairs"),
        ({"a": 0.5}, TypeError, r"got \('a', 0.5\) among them"),
        ([Rule()], TypeError, "among them"),
        (["ab"], TypeError, "got 'ab' among them"),
        ([(None, Rule())], TypeError, "got the pattern None"),
        ([("a", Rule()), ("a", Rule(2.0))], ValueError, "once, got 'a' twice"),
        ({"(": Rule()}, ValueError, r"must be regular expressions, got '\('"),
        (optax.adam(0.1), TypeError, "got another transformation"),
    ],
)
def test_rules_are_checked(rules, error, message):
    with pytest.raises(error, match=message):
        ox.with_rules(optax.identity(), 1.0, rules)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"learning_rate": -1.0},
            ValueError,
            "`learning_rate` must be finite and >= 0",
        ),
        ({"weight_decay": -1.0}, ValueError, "`weight_decay` must be finite and >= 0"),
        ({"weight_decay": np.ones(2)}, ValueError, "`weight_decay` must be a scalar"),
        ({"require_all": "no"}, TypeError, "`require_all` must be True or False"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.with_rules(
            **{
                "inner": optax.identity(),
                "learning_rate": 1.0,
                "rules": {},
                **arguments,
            }
        )


@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 1, 2)])
def test_arrays_that_do_not_broadcast(shape):
    for rule in (Rule(np.ones(shape)), Rule(1.0, jnp.ones(shape))):
        tx = ox.with_rules(optax.identity(), 1.0, {"a": rule})
        with pytest.raises(ValueError, match=r"'a' must broadcast to .* \(2,\) at 'a'"):
            tx.init({"a": jnp.ones(2)})


@pytest.mark.parametrize(
    "inner", [optax.scale_by_adam(), optax.trace(0.9), optax.identity()]
)
def test_a_gradient_that_is_none(inner):
    """Its update is None, its buffers stay, and others are as ever."""
    params = {"a": jnp.ones(2), "b": jnp.ones(2), "c": None}
    grads = {"a": jnp.ones(2), "b": jnp.full(2, 3.0), "c": None}
    tx = ox.with_rules(inner, 0.1, {"b": Rule(2.0)}, weight_decay=0.1)
    _, state = tx.update(grads, tx.init(params), params)
    updates, after = tx.update({**grads, "b": None}, state, params)
    whole, expected = tx.update(grads, state, params)
    assert updates["b"] is None
    np.testing.assert_array_equal(updates["a"], whole["a"])
    assert jax.tree.structure(after) == jax.tree.structure(expected)
    for path, new in by_path(after).items():
        of_b = path.endswith("/b")
        np.testing.assert_array_equal(
            new, by_path(state if of_b else expected)[path], err_msg=path
        )
