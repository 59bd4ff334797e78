"""Buckets of leaves of one shape, against the leaves one by one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import optax_extras as ox

from wrapped import BY_ELEMENT, BY_LEAF, NOISY, rows

BY_SHAPE = {"tree_map_params_of_state": "buckets depend on the shapes of leaves"}
SPECS = rows(ox.bucketed, BY_SHAPE)

RNG = np.random.default_rng(0)
STEPS = 3


def random(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


PARAMS = {
    "layers": [{"w": random(4, 5), "b": random(5)} for _ in range(3)],
    "head": random(5, 2),
    "scale": random(),
    "half": random(4, 5).astype(jnp.bfloat16),
}


def train(tx, params=PARAMS):
    """Parameters after a few steps on gradients that differ from leaf to leaf."""
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(STEPS):
        grads = jax.tree.map(lambda p: jnp.sin((step + 1) * p), params)  # noqa: B023
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def assert_close(found, expected, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        own = max(tolerance, float(jnp.finfo(x.dtype).eps) * (tolerance > 0))
        np.testing.assert_allclose(x, y, rtol=own, atol=own)


METHODS = {**BY_LEAF, **BY_ELEMENT}


@pytest.mark.daily("muon")
@pytest.mark.parametrize("name", METHODS)
def test_leaves_are_updated_as_alone(name):
    tx = METHODS[name]()
    assert_close(train(ox.bucketed(tx)), train(tx))


@pytest.mark.daily("noisy_sgd")
@pytest.mark.parametrize("name", NOISY)
def test_draws_are_those_without_buckets(name):
    tx = NOISY[name]()
    assert_close(train(ox.bucketed(tx)), train(tx), 1e-6)


def test_a_compiled_inner_draws_by_the_paths_of_each_call():
    inner = ox.add_decayed_noise(1.0, key=0)
    inner = optax.GradientTransformationExtraArgs(inner.init, jax.jit(inner.update))
    for names in ("ab", "cd", "ab"):
        params = {name: jnp.zeros(4) for name in names}
        tx = ox.bucketed(inner)
        found, _ = tx.update(params, tx.init(params))
        assert_close(found, inner.update(params, inner.init(params))[0], 0)


def test_buckets_inside_stacks_draw_by_whole_paths():
    params = {"a": jnp.zeros((3, 4)), "b": jnp.zeros((3, 4))}
    inner = ox.add_decayed_noise(1.0, key=0)
    tx = ox.stacked(ox.bucketed(inner), {".": 0})
    found, _ = jax.jit(tx.update)(params, tx.init(params))
    lists = {name: list(x) for name, x in params.items()}
    expected, _ = inner.update(lists, inner.init(lists))
    assert_close(found, {name: jnp.stack(x) for name, x in expected.items()}, 0)


def test_typed_keys_of_others_differ_by_leaf():
    params = {"a": jnp.zeros(50), "b": jnp.zeros(50)}
    tx = ox.bucketed(optax.add_noise(1.0, 0.0, jax.random.key(0)))
    found, _ = tx.update(params, tx.init(params))
    assert len(np.unique(np.stack(list(found.values())))) == 100


def test_there_is_one_bucket_for_each_shape_and_dtype():
    state = ox.bucketed(optax.trace(0.9)).init(PARAMS)
    shapes = {(x.shape, x.dtype.name) for x in jax.tree.leaves(state)}
    assert shapes == {
        ((3, 4, 5), "float32"),
        ((3, 5), "float32"),
        ((1, 5, 2), "float32"),
        ((1,), "float32"),
        ((1, 4, 5), "bfloat16"),
    }


def test_a_leaf_without_a_gradient_keeps_its_state():
    params = {name: random(3) for name in "abc"}
    tx = ox.bucketed(optax.adam(0.1))
    _, state = tx.update(params, tx.init(params), params)
    updates, after = tx.update({**params, "b": None}, state, params)
    assert updates["b"] is None
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old[1], new[1])
        assert (old[0] != new[0]).all()
    with pytest.raises(ValueError, match=r"got buckets of \[2\] .* pass `params`"):
        tx.update({**params, "b": None}, state)


def test_other_buckets_than_those_of_init_are_refused():
    tx = ox.bucketed(optax.sgd(0.1, 0.9))
    state = tx.init({"a": jnp.ones(2), "b": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"got buckets of \[2\] leaves for a state of"):
        tx.update({"a": jnp.ones(2), "b": jnp.ones(2)}, state)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_buckets_are_sharded_as_their_leaves(kind):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    sharding = NamedSharding(mesh, P(None, "x"))
    with jax.set_mesh(mesh):
        params = {n: jax.device_put(random(2, 16), sharding) for n in "abc"}
        tx = ox.bucketed(optax.adam(0.1))
        state = tx.init(params)
        update = jax.jit(tx.update)
        updates, after = update(params, state, params)
        collectives = r"all-(gather|reduce|to-all)\(|collective-permute\("
        compiled = update.lower(params, state, params).compile()
        assert not re.search(collectives, compiled.as_text())
    expected = NamedSharding(mesh, P(None, None, "x"))
    for leaf in jax.tree.leaves((state, after)):
        if leaf.ndim == 3:
            assert leaf.sharding.is_equivalent_to(expected, 3)
    for leaf in jax.tree.leaves(updates):
        assert leaf.sharding.is_equivalent_to(sharding, 2)
    alone = optax.adam(0.1)
    assert_close(updates, alone.update(params, alone.init(params), params)[0])


def fusions(tx, params):
    state = jax.eval_shape(tx.init, params)
    compiled = jax.jit(tx.update).lower(params, state, params).compile()
    return len(re.findall(r" fusion\(", compiled.as_text()))


@pytest.mark.slow
def test_many_leaves_compile_to_few_fusions():
    leaf = jax.ShapeDtypeStruct((16, 16), jnp.float32)
    params = {f"w{i}": leaf for i in range(50)}
    muon = optax.contrib.muon(0.02)
    assert fusions(ox.bucketed(muon), params) < 0.1 * fusions(muon, params)


def test_leaves_draw_differently_behind_a_constant():
    params = {name: jnp.zeros(4) for name in "abc"}
    tx = ox.bucketed(optax.chain(optax.set_to_zero(), ox.add_decayed_noise(1.0, key=0)))
    found, _ = jax.jit(tx.update)(params, tx.init(params))
    assert len(np.unique(np.stack(list(found.values())))) == 12


@pytest.mark.parametrize("promotion", ["standard", "strict"])
@pytest.mark.parametrize("dtypes", ["hff", "hNh", "fNh"])
def test_updates_keep_the_dtypes_of_their_gradients(dtypes, promotion):
    of = {"h": jnp.bfloat16, "f": jnp.float32}
    params = {name: jnp.ones(3) for name in "abc"}
    grads = {
        name: None if kind == "N" else jnp.ones(3, of[kind])
        for name, kind in zip(params, dtypes, strict=True)
    }
    tx = ox.bucketed(optax.stateless(lambda grads, params: grads))
    with jax.numpy_dtype_promotion(promotion):
        updates, _ = tx.update(grads, tx.init(params), params)
    assert jax.tree.map(jnp.result_type, updates) == jax.tree.map(
        jnp.result_type, grads
    )


def test_keys_that_noise_could_not_be_drawn_by_are_taken():
    class Key:
        def __lt__(self, other):
            return id(self) < id(other)

    params = {Key(): jnp.ones(3), Key(): jnp.ones(3)}
    tx = ox.bucketed(optax.adam(0.1))
    tx.update(params, tx.init(params), params)


def test_large_buckets_are_divided():
    params = {f"w{i}": jax.ShapeDtypeStruct((512, 512), jnp.float32) for i in range(9)}
    tx = ox.bucketed(optax.trace(0.9))
    sizes = [x.shape[0] for x in jax.tree.leaves(jax.eval_shape(tx.init, params))]
    assert sizes == [3, 3, 3]
    state = tx.init({"w0": jnp.ones(2)})
    with pytest.raises(ValueError, match="must form the buckets"):
        tx.update({f"w{i}": jnp.ones((512, 512)) for i in range(9)}, state)
