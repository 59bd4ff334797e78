"""Compressed means of numbers, dtypes and sizes at the limits of float32 and int32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras import compressors as c
from optax_extras._core.joining import parted

from communication.local import run as run_alone
from communication.methods import trained
from communication.workers import N, gradients, mesh_of, run, start

pytestmark = pytest.mark.nightly

ALONG = {"axis_name": "data", "workers": N}


def wire_bytes(tx, *shape, dtype=jnp.float32):
    return ox.wire_bytes(tx, jax.ShapeDtypeStruct(shape, dtype), **ALONG)


@pytest.mark.parametrize(
    "tx",
    [
        ox.compressed_mean(c.top_k(1.0), **ALONG),
        ox.compressed_mean(c.random_k(0.1, key=0), **ALONG),
        ox.compressed_mean(c.top_k(0.1, chunk=64, bits=2), decay=0.9, **ALONG),
        ox.compressed_mean(c.Staged((0, 1), (c.Dense(), c.sign())), **ALONG),
        ox.power_sgd(0.1, start_step=1, **ALONG),
        ox.deep_gradient_compression(0.1, density=0.1, clip=1.0, **ALONG),
        ox.demo(0.1, **ALONG),
    ],
    ids=["top_k", "random_k", "2 bit", "stages", "power_sgd", "dgc", "demo"],
)
def test_states_are_float32_with_x64_too(tx):
    with jax.enable_x64(True):
        found, state = run(tx, gradients(2, shapes={"w": (40, 30)}))
    assert found["w"].dtype == np.float32
    dtypes = {x.dtype.name for x in jax.tree.leaves(state)}
    assert dtypes == {"float32", "int32"}


@pytest.mark.parametrize("name", ["diloco", "sparse_loco"])
def test_states_of_workers_alone_are_float32_with_x64_too(name):
    grads = gradients(4)
    with jax.enable_x64(True):
        found, (_, state) = trained(name, grads)
    assert {x.dtype for x in found.values()} == {np.dtype("f4")}
    dtypes = {x.dtype.name for x in jax.tree.leaves(state)}
    assert dtypes == {"float32", "int32", "bool"}
    expected, _ = trained(name, grads)
    for leaf, x in found.items():
        np.testing.assert_allclose(x, expected[leaf], atol=1e-6)


def test_workers_alone_keep_what_is_below_the_resolution_of_float32():
    grads = {"w": np.full((2, N, 3), 1e-9)}
    tx = ox.fedavg(optax.sgd(1.0), every=2, **ALONG)
    with jax.enable_x64(True):
        found, _ = run_alone(tx, {"w": jnp.ones(3)}, grads)
    np.testing.assert_allclose(1 - found["w"][1], 2e-9, rtol=1e-6)


def test_a_residual_stays_float32_with_a_decay_of_float64():
    with jax.enable_x64(True):
        tx = ox.local_updates(
            *(optax.sgd(0.1), optax.sgd(1.0), 2),
            compressor=c.top_k(0.1),
            decay=jnp.float64(0.5),
            **ALONG,
        )
        grads = gradients(2, shapes={"w": (40, 30)})
        _, (_, state) = run_alone(tx, {"w": jnp.zeros((40, 30), jnp.float32)}, grads)
    assert state.residual[0].value["w"].dtype == np.float32


@pytest.mark.parametrize(
    "compressor", [c.sign("norm"), c.low_rank(2)], ids=["sign", "low_rank"]
)
def test_an_overflow_skips_the_step(compressor):
    """Their norms overflow where the gradients do not."""
    tx = ox.compressed_mean(compressor, **ALONG)
    grads = gradients(3, shapes={"b": (5,), "w": (40, 30)})  # one of them dense
    grads["w"][1, 2] *= 8e37
    check_second_is_skipped(tx, grads)


def test_a_dense_sum_that_overflows_skips_the_step():
    grads = gradients(3, shapes={"b": (5,), "w": (40, 30)})
    grads["b"][1] = 2e38
    check_second_is_skipped(ox.compressed_mean(c.top_k(0.1), **ALONG), grads)


@pytest.mark.parametrize(
    "compressor", [c.top_k(0.1), c.top_k(0.1, chunk=64, bits=2), c.quantized(8)]
)
def test_a_sum_of_messages_that_overflows_skips_the_step(compressor):
    grads = gradients(3, shapes={"w": (40, 30)})
    grads["w"][1] = 2e38
    check_second_is_skipped(ox.compressed_mean(compressor, **ALONG), grads)


def check_second_is_skipped(tx, grads):
    found, state = run(tx, grads)
    assert int(state.skipped) == 1
    expected, _ = run(tx, {name: g[[0, 2]] for name, g in grads.items()})
    for name, updates in found.items():
        np.testing.assert_array_equal(updates[1], 0)
        np.testing.assert_array_equal(updates[[0, 2]], expected[name])


def test_low_rank_of_large_gradients():
    """The factors of a step are as large as its gradients, and multiply the next."""
    grads = gradients(3, shapes={"w": (40, 30)})
    grads["w"] *= 1e25
    found, state = run(ox.compressed_mean(c.low_rank(2), **ALONG), grads)
    assert int(state.skipped) == 0
    assert np.isfinite(found["w"]).all()


def test_leaves_that_int32_does_not_index():
    size = 2**31
    for compressor in (c.top_k(0.01, chunk=4096), c.random_k(0.01, key=0)):
        with pytest.raises(ValueError, match=r"less than 2\^31 elements"):
            wire_bytes(ox.compressed_mean(compressor, **ALONG), size)
    found = wire_bytes(ox.compressed_mean(c.quantized(8), **ALONG), size)
    assert 1 < found.sent / size < 1.1


def test_parts_that_int32_does_not_index():
    whole = jax.ShapeDtypeStruct((2**31 + 8,), jnp.uint8)
    traced = jax.make_jaxpr(lambda x: parted(x, [2**31, 8]))(whole)
    assert [one.primitive.name for one in traced.eqns] == ["split"]


def test_a_complex_element_is_two_real_ones():
    tx = ox.compressed_mean(c.quantized(8), **ALONG)
    real, complex_ = wire_bytes(tx, 2, 5000), wire_bytes(tx, 5000, dtype="complex64")
    assert real == complex_


def test_a_note_about_a_gather_is_about_one():
    found = wire_bytes(ox.compressed_mean(c.top_k(0.01), **ALONG), 100)
    assert found.note == "it moves more than a dense mean"  # by the flag


def test_clipping_counts_a_leaf_once_that_shards_share():
    shapes = {"b": (5,), "w": (40, 30)}
    grads = gradients(1, shapes=shapes)
    tx = ox.deep_gradient_compression(1.0, density=1.0, clip=1.0, **ALONG)
    expected, _ = run(tx, grads)
    mesh = mesh_of((N, 2), names=("data", "model"))
    specs = {"b": P(), "w": P("model")}
    params = {
        name: jax.device_put(jnp.zeros(shape), NamedSharding(mesh, specs[name]))
        for name, shape in shapes.items()
    }
    state, state_specs = start(tx, params, mesh)

    def update(grads, state):
        return tx.update(jax.tree.map(lambda g: g[0], grads), state)[0]

    step = jax.shard_map(
        update,
        mesh=mesh,
        in_specs=({"b": P("data"), "w": P("data", "model")}, state_specs),
        out_specs=P("model"),
    )
    found = jax.jit(step)(jax.tree.map(lambda g: g[0], grads), state)
    np.testing.assert_allclose(found["w"], expected["w"][0], atol=1e-6)
    np.testing.assert_allclose(found["b"], np.tile(expected["b"][0], 2), atol=1e-6)
