"""Stacks of layers and experts, against lists of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras.communication import collective_bytes

from wrapped import BY_ELEMENT, BY_LEAF, NOISY, rows

BY_SHAPE = {"tree_map_params_of_state": "stacks depend on the shapes of leaves"}
SPECS = rows(ox.stacked, BY_SHAPE, axes={r"(?!s$).*": 0})  # all but a 0-d leaf

RNG = np.random.default_rng(0)
LAYERS, EXPERTS, STEPS = 3, 2, 3
SHAPES = {"w": (LAYERS, 4, 5), "b": (LAYERS, 5), "e": (LAYERS, EXPERTS, 5, 3)}


def random(shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


PARAMS = {
    "layers": {name: random(SHAPES[name]) for name in ("w", "b")},
    "experts": random(SHAPES["e"]),
    "head": random((5, 2)),
}
PATTERNS = {"layers/.*": 0, "experts": (0, 1)}


def apart(tree):
    """The tree with a list for each axis that stacks."""
    return {
        "layers": {name: list(x) for name, x in tree["layers"].items()},
        "experts": [list(layer) for layer in tree["experts"]],
        "head": tree["head"],
    }


def together(tree):
    """The stacked tree again."""
    return {
        "layers": {name: jnp.stack(x) for name, x in tree["layers"].items()},
        "experts": jnp.stack([jnp.stack(layer) for layer in tree["experts"]]),
        "head": tree["head"],
    }


def train(tx, params, arrange=lambda tree: tree):
    """Parameters after a few steps on gradients that differ from slice to slice."""
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(STEPS):
        grads = jax.tree.map(lambda p: jnp.sin((step + 1) * p), params)  # noqa: B023
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return arrange(params)


def difference(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in pairs)


@pytest.mark.daily("lars", "adam")
@pytest.mark.parametrize("name", [*BY_LEAF, *BY_ELEMENT])
def test_slices_are_leaves_of_their_own(name):
    tx = {**BY_LEAF, **BY_ELEMENT}[name]()
    found = train(ox.stacked(tx, PATTERNS), PARAMS)
    expected = train(tx, apart(PARAMS), together)
    assert difference(found, expected) < 1e-5
    without = difference(train(tx, PARAMS), expected)
    assert (without > 1e-5) == (name in BY_LEAF), without


@pytest.mark.daily("noisy_sgd")
@pytest.mark.parametrize("name", NOISY)
def test_slices_draw_as_the_leaves_of_a_list(name):
    tx = NOISY[name]()
    found = train(ox.stacked(tx, PATTERNS), PARAMS)
    expected = train(tx, apart(PARAMS), together)
    assert difference(found, expected) < 1e-6
    slices = [*found["layers"]["b"], *PARAMS["layers"]["b"]]
    for one, other in itertools.combinations(slices, 2):
        assert difference(one, other) > 0.01


def zeros_like_slices():
    return {"w": jnp.zeros((LAYERS, 100))}, {"w": 0}


def draws(tx, **extra):
    params, axes = zeros_like_slices()
    tx = ox.stacked(tx, axes)
    return np.asarray(tx.update(params, tx.init(params), params, **extra)[0]["w"])


def test_a_key_for_one_step_draws_differently_by_slice():
    found = draws(ox.add_decayed_noise(1.0, key=0), key=jax.random.key(5))
    assert len(np.unique(found)) == found.size
    other = draws(ox.add_decayed_noise(1.0, key=0))
    assert not np.isin(found, other).any()


def test_typed_keys_of_others_differ_by_slice():
    found = draws(optax.add_noise(1.0, 0.0, jax.random.key(0)))
    assert len(np.unique(found)) == found.size


@pytest.mark.nightly
def test_a_compiled_inner_draws_by_the_paths_of_each_call():
    inner = ox.add_decayed_noise(1.0, key=0)
    inner = optax.GradientTransformationExtraArgs(inner.init, jax.jit(inner.update))
    for shape in ((3, 4), (5, 4)):
        params = {"a": jnp.zeros(shape), "b": jnp.zeros(shape)}
        for axes in ({".": 0}, {"a": 0, "b": 0}):
            tx = ox.stacked(inner, axes)
            found, _ = tx.update(params, tx.init(params))
            lists = {name: list(x) for name, x in params.items()}
            expected, _ = inner.update(lists, inner.init(lists))
            for name in params:
                np.testing.assert_array_equal(found[name], jnp.stack(expected[name]))


def test_stacks_in_stacks_draw_differently():
    params = jnp.zeros((3, 2, 4))
    tx = ox.stacked(ox.add_decayed_noise(1.0, key=0), {"": 0})
    tx = ox.stacked(tx, {"": 0})
    found, _ = jax.jit(tx.update)(params, tx.init(params))
    assert len(np.unique(found)) == found.size


def test_any_axis_may_stack():
    moved = {"w": jnp.moveaxis(PARAMS["layers"]["w"], 0, 1)}
    found = train(ox.stacked(optax.lamb(0.1), {"w": 1}), moved)
    again = train(ox.stacked(optax.lamb(0.1), {"w": -2}), moved)
    expected = train(optax.lamb(0.1), {"w": list(PARAMS["layers"]["w"])})["w"]
    for tree in (found, again):
        assert difference(jnp.moveaxis(tree["w"], 1, 0), jnp.stack(expected)) < 1e-5


def test_stacks_of_several_lengths_under_one_pattern():
    params = {"long": random((5, 4)), "short": random((2, 4))}
    found = train(ox.stacked(optax.lamb(0.1), {".*": 0}), params)
    expected = train(optax.lamb(0.1), {k: list(v) for k, v in params.items()})
    assert difference(found, {k: jnp.stack(v) for k, v in expected.items()}) < 1e-5


def test_what_reduces_over_the_tree_belongs_outside():
    grads = {"layers": jnp.ones((4, 9))}
    clip = optax.clip_by_global_norm(1.0)
    inside = ox.stacked(clip, {"layers": 0})
    outside = optax.chain(clip, ox.stacked(optax.identity(), {"layers": 0}))
    norms = [
        optax.tree.norm(tx.update(grads, tx.init(grads), grads)[0])
        for tx in (inside, outside)
    ]
    np.testing.assert_allclose(norms, [2, 1], rtol=1e-6)


def test_extra_arguments_and_injected_rates_are_passed_on():
    tx = optax.inject_hyperparams(
        lambda learning_rate: ox.stacked(optax.sgd(learning_rate), PATTERNS)
    )(learning_rate=0.1)
    assert difference(train(tx, PARAMS), train(optax.sgd(0.1), PARAMS)) < 1e-6
    scale = optax.GradientTransformationExtraArgs(
        lambda params: (),
        lambda g, state, params=None, *, value: (
            jax.tree.map(lambda x: value * x, g),
            state,
        ),
    )
    tx = ox.stacked(scale, PATTERNS)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), value=jnp.float32(2))
    assert difference(updates, jax.tree.map(lambda x: 2 * x, PARAMS)) == 0


MESHES = {
    "stacked axis": {"w": P("x", None, "y"), "b": P("x")},
    "other axes": {"w": P(None, "x", "y"), "b": P(None, "y")},
}


@pytest.mark.daily("adam-*")
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("place", MESHES)
@pytest.mark.parametrize("name", ["adam", "lamb", "noisy_sgd"])
def test_sharded_stacks_stay_where_they_are(kind, place, name):
    tx = {"lamb": BY_LEAF["lamb"], "adam": BY_ELEMENT["adam"], **NOISY}[name]()
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind,) * 2)
    whole = {"w": random((4, 8, 6)), "b": random((4, 6))}
    lists = {k: list(v) for k, v in whole.items()}
    with jax.set_mesh(mesh):
        params = {
            k: jax.device_put(x, NamedSharding(mesh, MESHES[place][k]))
            for k, x in whole.items()
        }

        def compiled(tx, params):
            state = tx.init(params)
            step = jax.jit(tx.update).lower(params, state, params).compile()
            return state, step(params, state, params), collective_bytes(step)

        state, (updates, after), moved = compiled(ox.stacked(tx, {".*": 0}), params)
        # As many as without, with scalars: none where slices are whole.
        if name != "lamb" or place == "stacked axis":
            most = 0 if name != "lamb" else 1024
            assert sum(one.operand_bytes for one in moved) <= most, moved
    for tree, own in ((updates, params), (after, state)):
        for x, like in zip(jax.tree.leaves(tree), jax.tree.leaves(own), strict=True):
            if like.ndim > 1:
                assert x.sharding.is_equivalent_to(like.sharding, x.ndim)
    for path, leaf in jax.tree.leaves_with_path(state):
        name_of = getattr(path[-1], "key", None)
        if name_of in params:
            own = params[name_of].sharding
            assert leaf.sharding.is_equivalent_to(own, leaf.ndim)
    expected, _ = tx.update(lists, tx.init(lists), lists)
    expected = {k: jnp.stack(v) for k, v in expected.items()}
    assert difference(jax.device_get(updates), expected) < 1e-5


def test_bad_axes():
    with pytest.raises(TypeError, match="`axes` must map patterns to axes, got"):
        ox.stacked(optax.sgd(0.1), ["head"])
    with pytest.raises(ValueError, match=r"'layer/.*' chooses none: the paths"):
        ox.stacked(optax.sgd(0.1), {"layer/.*": 0}).init(PARAMS)


def test_other_stacks_than_those_of_init_are_refused():
    tx = ox.stacked(optax.sgd(0.1, 0.9), {".*": 0})
    state = tx.init({"a": jnp.ones((2, 3)), "b": jnp.ones((2, 3))})
    with pytest.raises(
        ValueError, match=r"form the stacks .* got 2 where the state ha"
    ):
        tx.update({"a": jnp.ones((2, 3)), "b": jnp.ones((4, 3))}, state)


CONSTANT_FIRST = {
    "no gradient": ({"a": None}, lambda tx: tx),
    "frozen": (
        {},
        lambda tx: optax.chain(
            optax.masked(optax.set_to_zero(), {"a": True, "b": False}), tx
        ),
    ),
}


@pytest.mark.parametrize("case", CONSTANT_FIRST)
def test_slices_draw_differently_behind_a_constant(case):
    change, wrap = CONSTANT_FIRST[case]
    params = {"a": jnp.zeros((3, 4)), "b": jnp.zeros((3, 4))}
    tx = ox.stacked(wrap(ox.add_decayed_noise(1.0, key=0)), {".": 0})
    found, _ = jax.jit(tx.update)({**params, **change}, tx.init(params), params)
    assert len(np.unique(found["b"])) == found["b"].size


@pytest.mark.daily("bucketed", "rules of muon")
@pytest.mark.parametrize(
    "inner",
    [
        lambda: ox.stacked(optax.contrib.muon(0.1), {"layers/.*": 0}),
        lambda: ox.stacked(ox.bucketed(optax.contrib.muon(0.1)), {"layers/.*": 0}),
        lambda: ox.with_rules(
            ox.stacked(ox.bucketed(optax.scale_by_adam()), {"layers/.*": 0}), 0.1, {}
        ),
        lambda: ox.with_rules(optax.contrib.muon(0.1), 0.1, {}),
    ],
    ids=["muon", "bucketed", "rules", "rules of muon"],
)
def test_a_leaf_without_a_gradient_keeps_its_buffers(inner):
    params, tx = {**PARAMS}, inner()
    update = jax.jit(tx.update)
    _, state = update(params, tx.init(params), params)
    grads = {**params, "layers": {**params["layers"], "b": None}}
    updates, after = update(grads, state, params)
    assert updates["layers"]["b"] is None
    pairs = zip(jax.tree.leaves_with_path(state), jax.tree.leaves(after), strict=True)
    for (path, old), new in pairs:
        if getattr(path[-1], "key", None) == "b":
            np.testing.assert_array_equal(old, new)
    later, _ = update(params, after, params)
    assert jnp.all(jnp.isfinite(later["layers"]["b"]))


def test_what_is_inside_must_be_a_transformation():
    for make in (
        ox.bucketed,
        ox.skip_spikes,
        lambda inner: ox.stacked(inner, {".*": 0}),
        lambda inner: ox.record(inner, ["grad_norm"]),
        lambda inner: ox.with_rules(inner, 0.1, {}),
    ):
        with pytest.raises(TypeError, match=r"`inner` must be a gradient.* 3"):
            make(3)


def test_multi_steps_inside_gets_extra_arguments():
    seen = []

    def update(updates, state, params=None, *, value=None, **extra):
        seen.append(value)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    for make in (
        ox.bucketed,
        ox.skip_spikes,
        lambda inner: ox.stacked(inner, {".*": 0}),
        lambda inner: ox.record(inner, ["grad_norm"]),
        lambda inner: ox.with_rules(inner, 0.1, {}),
    ):
        tx, params = make(optax.MultiSteps(inner, 1)), {"w": jnp.ones((2, 2))}
        tx.update(params, tx.init(params), params, value=jnp.float32(1))
    assert None not in seen


def test_records_of_stacks_are_told_to_be_outside():
    tx = ox.stacked(ox.record(optax.sgd(0.1), ["grad_norm"]), {"layers/.*": 0})
    with pytest.raises(ValueError, match="`record` belongs outside of `stacked`"):
        ox.recorded(tx.init(PARAMS))
