"""Steps of every method: in a loop, in a scan, donated, along two axes, on zeros."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras._core.placement import Divided, PerWorker, is_placed

from communication.methods import METHODS, method
from communication.workers import SHAPES, gradients, mesh_of, start, step_of

pytestmark = pytest.mark.slow

STEPS = 4
PARAMS = {name: np.zeros(shape, "f4") for name, shape in SHAPES.items()}


@functools.cache
def compiled(name):
    """A step without the types of what varies, and its first state."""
    tx, mesh = method(name), mesh_of()
    state, specs = start(tx, PARAMS, mesh)
    return step_of(tx, mesh, specs, check_vma=False), state


def loop(name, grads, state=None):
    """Updates of all steps, and the last state."""
    step, first = compiled(name)
    state, found = first if state is None else state, []
    place = NamedSharding(mesh_of(), P("data"))
    for t in range(len(grads["b"])):
        local = jax.tree.map(lambda g, t=t: jax.device_put(g[t], place), grads)
        updates, state = step(local, state, PARAMS)
        found.append(updates)
    return jax.tree.map(lambda *u: np.stack(u), *found), state


def scan(tx, mesh, grads):
    """The same as one program, with its types, which takes the state's buffers."""
    axes = mesh.axis_names if len(mesh.axis_names) > 1 else mesh.axis_names[0]
    with jax.set_mesh(mesh):
        state = tx.init(PARAMS)
    specs = ox.worker_specs(state, axes)

    def steps(grads, state, params):
        def step(carry, grads):
            params, state = carry
            local = jax.tree.map(lambda g: g[0], grads)
            updates, state = tx.update(local, state, params)
            params = jax.tree.map(jnp.add, params, updates)
            return (params, state), updates

        (params, state), updates = jax.lax.scan(step, (params, state), grads)
        return params, state, updates

    each = P(None, axes)
    mapped = jax.shard_map(
        steps, mesh=mesh, in_specs=(each, specs, P()), out_specs=(P(), specs, P())
    )
    params = jax.device_put(PARAMS, NamedSharding(mesh, P()))
    given = jax.tree.leaves((state, params))
    run = jax.jit(mapped, donate_argnums=(1, 2))
    params, state, updates = run(
        jax.device_put(grads, NamedSharding(mesh, each)), state, params
    )
    assert all(x.is_deleted() for x in given)
    for name, moved in params.items():
        np.testing.assert_allclose(moved, updates[name].sum(axis=0), atol=1e-5)
    return updates, state


def assert_close(found, expected):
    """Equal but for sums that are rounded elsewhere in another program."""
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-6),
        found,
        expected,
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_scan_with_donated_buffers_is_a_loop(name):
    grads = gradients(STEPS)
    assert_close(scan(method(name), mesh_of(), grads), loop(name, grads))


@pytest.mark.parametrize("name", ["8 bit", "low_rank"])
def test_workers_along_two_axes(name):
    grads, mesh = gradients(STEPS), mesh_of((2, 2), names=("data", "model"))
    found = scan(method(name, axis_name=("data", "model")), mesh, grads)
    assert_close(found, loop(name, grads))


@pytest.mark.parametrize("name", METHODS)
def test_zero_gradients(name):
    grads = gradients(2)
    zeros = jax.tree.map(np.zeros_like, grads)
    updates, state = loop(name, zeros)
    assert not any(map(np.any, updates.values()))
    kept = jax.tree.leaves(
        [
            x
            for x in jax.tree.leaves(state, is_leaf=is_placed)
            if isinstance(x, PerWorker | Divided)
        ]
    )
    assert not any(np.any(x) for x in kept if x.ndim)
    updates, _ = loop(name, grads, state)  # and it goes on
    assert all(np.isfinite(u).all() and np.any(u) for u in updates.values())
