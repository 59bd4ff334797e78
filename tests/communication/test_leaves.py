"""Leaves of every kind: tiny, empty, absent, and of half precision."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import optax_extras as ox
from optax_extras import compressors as c
from optax_extras._core.placement import Divided

from communication import local
from communication.methods import COMPRESSORS, LOCAL, method, trained
from communication.training import PARAMS, train
from communication.workers import (
    N,
    applied,
    begin,
    gradients,
    mesh_of,
    of_worker,
    run,
)

pytestmark = pytest.mark.nightly

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


@pytest.mark.parametrize("name", ["4 bit", "dgc", "demo", "diloco"])
def test_absent_leaves(name):
    tx, mesh = method(name), mesh_of()
    carry = begin(tx, {"none": None, **PARAMS}, mesh)
    without = begin(tx, PARAMS, mesh)
    assert jax.tree.map(jnp.shape, jax.tree.leaves(carry)) == jax.tree.map(
        jnp.shape, jax.tree.leaves(without)
    )

    def update(carry, grads):
        params, state = carry
        local = of_worker({"none": None, **grads}, params)
        updates, state = tx.update(local, state, params)
        return applied(params, updates, state), state

    specs = ox.worker_specs(carry, "data")
    mapped = jax.shard_map(
        update, mesh=mesh, in_specs=(specs, P("data")), out_specs=specs
    )
    step = jax.jit(mapped)
    grads = gradients(4, shapes=jax.tree.map(np.shape, PARAMS))
    for t in range(4):
        carry = step(carry, jax.tree.map(lambda g, t=t: g[t], grads))
    params = carry[0].value if name in LOCAL else carry[0]
    assert params.pop("none") is None
    expected, _ = trained(name, grads)
    for leaf in PARAMS:
        last = expected[leaf][-1] if name in LOCAL else expected[leaf].sum(axis=0)
        np.testing.assert_allclose(params[leaf], last, atol=1e-5)


@pytest.mark.parametrize(
    ("compressor", "dtype"),
    [
        (None, jnp.float32),
        (c.top_k(1.0), jnp.bfloat16),
        (c.top_k(1.0), jnp.complex64),
    ],
    ids=["dense", "bfloat16", "complex64"],
)
def test_workers_that_train_alone_agree_on_odd_leaves(compressor, dtype):
    """Their mean is where the sum of mean gradients leads."""
    tx = ox.local_updates(
        optax.sgd(0.1),
        optax.sgd(1.0),
        every=2,
        axis_name="data",
        workers=N,
        compressor=compressor,
        fragments=2,
        min_size=0,
    )
    grads = gradients(6, shapes=ODD)
    if dtype == jnp.complex64:
        grads = jax.tree.map(lambda g: g * (1 + 2j), grads)
    grads = jax.tree.map(lambda g: jnp.asarray(g, dtype), grads)
    params = jax.tree.map(lambda g: jnp.ones(g.shape[2:], dtype), grads)
    found, _ = local.run(tx, params, grads)
    atol = 0.05 if dtype == jnp.bfloat16 else 1e-5
    for leaf, given in grads.items():
        wide = np.asarray(given).astype(complex).mean(axis=1)
        means = 1 - 0.1 * wide.cumsum(axis=0)
        agreed = [(x == x[:1]).all() for x in found[leaf]]
        if given.size:  # at the steps of its fragment alone
            assert agreed in ([True, False] * 3, [False, True] * 3)
        assert found[leaf].dtype == dtype
        for x, mean in zip(found[leaf][agreed], means[agreed], strict=True):
            np.testing.assert_allclose(x[0].astype(complex), mean, atol=atol)


@pytest.mark.parametrize("name", ["4 bit", "low_rank", "dgc", "diloco"])
def test_training_in_half_precision(name):
    tx, mesh = method(name), mesh_of()
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    first = begin(tx, params, mesh)
    steps = list(itertools.islice(train(tx, mesh, first), 30))
    params, state, last = steps[-1]
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    for one in (first[1], state):
        stage = one if name in LOCAL else one[0]
        kept = jax.tree.leaves(stage.residual)
        assert {x.dtype for x in kept} <= {jnp.dtype(jnp.float32)}
        assert kept or name == "fedavg"
    assert last < 0.7 * steps[0][2]
