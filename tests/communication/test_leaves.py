"""Leaves of every kind: tiny, empty, absent, and of half precision."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import optax_extras as ox
from optax_extras import compressors as c
from optax_extras._core.placement import Divided, PerWorker, is_placed

from communication.methods import COMPRESSORS, method
from communication.training import PARAMS, train
from communication.workers import N, gradients, mesh_of, run, start

pytestmark = pytest.mark.slow

ODD = {"0-d": (), "empty": (0, 3), "few": (20,), "matrix": (3, 2), "w": (20, 30)}
# Stochastic rounding keeps nothing of its second phase.
BIASED = {**COMPRESSORS, "8 bit": c.quantized(8)}


def kept_of(state):
    """What all workers and servers keep of each leaf, on average."""
    kept = {}
    if isinstance(state.compressor, Divided):
        rows = np.asarray(state.compressor.value, np.float64)
        rows = rows.reshape(-1, rows.shape[-2] * rows.shape[-1])
    for leaf, each in state.residual.value.items():
        if each is None:
            kept[leaf] = 0
            continue
        kept[leaf] = np.mean(np.asarray(each, np.float64), axis=0)
        if isinstance(state.compressor, Divided):
            size = kept[leaf].size
            mine, rows = np.split(rows, [-(-size // rows.shape[1])])
            kept[leaf] += mine.reshape(-1)[:size].reshape(kept[leaf].shape)
    return kept


@pytest.mark.parametrize("name", BIASED)
def test_nothing_is_lost_of_odd_leaves(name):
    tx = ox.compressed_mean(BIASED[name], "data", workers=N, min_size=0)
    grads = gradients(6, shapes=ODD)
    found, state = run(tx, grads)
    kept = kept_of(state)
    for leaf, shape in ODD.items():
        given = grads[leaf].astype(np.float64).mean(axis=1).sum(axis=0)
        sent = found[leaf].astype(np.float64).sum(axis=0)
        assert sent.shape == shape
        np.testing.assert_allclose(sent + kept[leaf], given, atol=1e-5)


def test_padding_is_no_part_of_a_small_leaf():
    grads = {"few": gradients(1)["e"][..., :20]}
    tx = ox.compressed_mean(c.sign(), "data", workers=N, min_size=0, feedback=False)
    found, _ = run(tx, grads)
    mean = grads["few"][0]
    mean = np.where(mean < 0, -1, 1) * np.abs(mean).mean(axis=1, keepdims=True)
    mean = mean.mean(axis=0)
    expected = np.where(mean < 0, -1, 1) * np.abs(mean).mean()
    np.testing.assert_allclose(found["few"][0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["4 bit", "dgc", "demo"])
def test_absent_leaves(name):
    tx, mesh = method(name), mesh_of()
    params = {"none": None, **PARAMS}
    state, specs = start(tx, params, mesh)
    without, _ = start(tx, PARAMS, mesh)
    assert jax.tree.map(jnp.shape, jax.tree.leaves(state)) == jax.tree.map(
        jnp.shape, jax.tree.leaves(without)
    )

    def update(grads, state, params):
        local = jax.tree.map(lambda g: g[0], grads)
        return tx.update({"none": None, **local}, state, params)

    mapped = jax.shard_map(
        update, mesh=mesh, in_specs=(P("data"), specs, P()), out_specs=(P(), specs)
    )
    grads = gradients(1, shapes=jax.tree.map(np.shape, PARAMS))
    updates, _ = jax.jit(mapped)(jax.tree.map(lambda g: g[0], grads), state, params)
    assert updates.pop("none") is None
    expected, _ = run(tx, grads)
    for leaf in PARAMS:
        np.testing.assert_allclose(updates[leaf], expected[leaf][0], atol=1e-6)


@pytest.mark.parametrize("name", ["4 bit", "low_rank", "dgc"])
def test_training_in_half_precision(name):
    tx, mesh = method(name), mesh_of()
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    first, _ = start(tx, params, mesh)
    steps = list(itertools.islice(train(tx, mesh, first, params), 30))
    params, state, last = steps[-1]
    assert {p.dtype for p in params.values()} == {jnp.dtype(jnp.bfloat16)}
    nodes = jax.tree.leaves((first, state), is_leaf=is_placed)
    kept = jax.tree.leaves([x for x in nodes if isinstance(x, PerWorker)])
    assert {x.dtype for x in kept} == {jnp.dtype(jnp.float32)}
    assert last < 0.7 * steps[0][2]
