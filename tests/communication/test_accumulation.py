"""Gradients of several batches before one step that communicates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras.compressors import quantized, top_k

from communication.methods import METHODS, method
from communication.workers import SHAPES, N, gradients, mesh_of, run, start, step_of

pytestmark = pytest.mark.slow

PARAMS = {name: np.zeros(shape, "f4") for name, shape in SHAPES.items()}
BOTH = pytest.mark.parametrize("check_vma", [True, False])


def means_of_pairs(grads):
    return jax.tree.map(lambda g: g.reshape(-1, 2, *g.shape[1:]).mean(axis=1), grads)


@pytest.mark.parametrize("name", METHODS)
def test_sums_of_each_worker_have_no_room_in_multi_steps(name):
    wrapped = optax.MultiSteps(method(name), every_k_schedule=2)
    for tx in (wrapped, optax.chain(wrapped.gradient_transformation())):
        with pytest.raises(ValueError, match=r"optax\.MultiSteps.* `jax\.lax\.scan`"):
            ox.worker_specs(tx.init(PARAMS), "data")


@BOTH
def test_means_may_be_summed_after_they_are_sent(check_vma):
    mean = ox.compressed_mean(top_k(1.0), "data", workers=N)
    steps = optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2)
    grads = gradients(4)
    found, _ = run(optax.chain(mean, steps), grads, check_vma=check_vma)
    expected = means_of_pairs(grads)
    for name in SHAPES:
        np.testing.assert_array_equal(found[name][::2], 0)
        means = -0.1 * expected[name].mean(axis=1)
        np.testing.assert_allclose(found[name][1::2], means, atol=1e-6)


@BOTH
def test_batches_in_a_scan_are_sent_once(check_vma):
    tx, mesh = ox.compressed_mean(quantized(4), "data", workers=N), mesh_of()
    state, specs = start(tx, PARAMS, mesh)

    def loss(params, batch):
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, params, batch)))

    def step(batches, state, params):
        """Batches of this worker, (2, 1, ...)."""
        grad = ox.local_value_and_grad(loss, "data")
        batches = jax.tree.map(lambda x: x[:, 0], batches)
        _, grads = jax.lax.scan(lambda _, x: (None, grad(params, x)[1]), None, batches)
        grads = jax.tree.map(lambda g: g.mean(axis=0), grads)
        return tx.update(grads, state, params)

    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(P(None, "data"), specs, P()),
        out_specs=(P(), specs),
        check_vma=check_vma,
    )

    def placed(tree, *spec):
        return jax.device_put(tree, NamedSharding(mesh, P(*spec)))

    grads, params = gradients(2), placed(PARAMS)
    both = placed(grads, None, "data")
    mean = placed(jax.tree.map(lambda g: g.mean(axis=0), grads), "data")
    several = jax.jit(mapped).lower(both, state, params).compile()
    once = step_of(tx, mesh, specs, check_vma).lower(mean, state, params).compile()
    assert sorted(ox.collective_bytes(several)) == sorted(ox.collective_bytes(once))
    found, _ = several(both, state, params)
    expected, _ = once(mean, state, params)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
