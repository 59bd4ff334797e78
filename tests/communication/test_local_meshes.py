"""Workers that train alone, each of which has several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras.compressors import quantized

from communication.local import run
from communication.workers import N, begin, gradients, mesh_of

pytestmark = pytest.mark.nightly

SHAPES = {"b": (5,), "w": (80, 30)}
STEPS = 5
TX = ox.diloco(
    optax.adamw(0.02),
    every=2,
    axis_name="data",
    workers=N,
    compressor=quantized(4, block=64),
    fragments=2,
)


def parameters():
    rng = np.random.default_rng(1)
    return {k: jnp.asarray(rng.normal(size=s), "f4") for k, s in SHAPES.items()}


def after_all_steps(params, grads, mesh, specs, update=TX.update, check_vma=True):
    """Parameters and state on a mesh; gradients have those specs."""
    carry = begin(TX, params, mesh)

    def step(carry, grads):
        params, state = carry
        updates, state = update(ox.PerWorker(grads), state, params)
        return ox.apply_local_updates(params, updates, state), state

    carried = ox.worker_specs(carry, "data")
    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(carried, specs),
        out_specs=carried,
        check_vma=check_vma,
    )
    step = jax.jit(mapped)
    for t in range(STEPS):
        carry = step(carry, jax.tree.map(lambda g, t=t: g[t], grads))
    return carry


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, False])
def test_parameters_sharded_over_a_second_axis(check_vma):
    """Each shard sends its own part, and a worker waits with all of its shards."""
    mesh = mesh_of((N, 2), names=("data", "model"))
    specs = {"b": P(), "w": P("model")}
    params = {
        name: jax.device_put(x, NamedSharding(mesh, specs[name]))
        for name, x in parameters().items()
    }
    grads = gradients(STEPS, shapes=SHAPES)
    grads["w"][2, 1, 70, 3] = np.nan  # in the second shard
    found, state = after_all_steps(
        params,
        grads,
        mesh,
        {"b": P("data"), "w": P("data", "model")},
        check_vma=check_vma,
    )
    assert found.value["w"].sharding.spec == P("data", "model")
    assert state.residual[1].value["w"].sharding.spec == P("data", "model")
    np.testing.assert_array_equal(state.skipped.value, [0, 1, 0, 0])
    grads["b"][2, 1] = np.nan  # for the first shard alone
    for half in (slice(40), slice(40, None)):
        part = {"b": grads["b"], "w": grads["w"][:, :, half]}
        alone, (_, expected) = run(
            TX, parameters() | {"w": parameters()["w"][half]}, part
        )
        np.testing.assert_array_equal(found.value["w"][:, half], alone["w"][-1])
        np.testing.assert_array_equal(found.value["b"], alone["b"][-1])
        for kind in ("reference", "residual"):
            np.testing.assert_array_equal(
                *(
                    np.asarray(x)
                    for x in (
                        jax.tree.leaves(getattr(state, kind)[1])[0][..., half, :],
                        jax.tree.leaves(getattr(expected, kind)[1])[0],
                    )
                )
            )
    assert_copies_agree((found, state))


def assert_copies_agree(tree):
    """Devices with the same part of an array have the same bits."""
    for x in jax.tree.leaves(tree):
        parts = {}
        for shard in x.addressable_shards:
            first = parts.setdefault(str(shard.index), np.asarray(shard.data))
            np.testing.assert_array_equal(shard.data, first)


@pytest.mark.slow
def test_gradients_that_are_averaged_over_fast_links():
    mesh = mesh_of((N, 2), names=("data", "fast"))
    grads = gradients(STEPS, workers=2 * N, shapes=SHAPES)

    def update(updates, state, params):
        return TX.update(lax.pmean(updates, "fast"), state, params)

    carry = after_all_steps(
        parameters(), grads, mesh, P(("data", "fast")), update=update
    )
    means = jax.tree.map(
        lambda g: g.reshape(STEPS, N, 2, *g.shape[2:]).mean(axis=2), grads
    )
    expected, _ = run(TX, parameters(), means)
    for name, x in carry[0].value.items():
        np.testing.assert_allclose(x, expected[name][-1], atol=1e-6)
    assert_copies_agree(carry)
