"""Steps of every method: in a loop, in a scan, donated, along two axes, on zeros."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras._core.placement import Divided, PerWorker, is_placed

from communication.methods import METHODS, method
from communication.workers import (
    SHAPES,
    N,
    applied,
    begin,
    first_of,
    gradients,
    mesh_of,
    of_worker,
)

pytestmark = pytest.mark.nightly

STEPS = 5
# One for each kind of message and of state; the nightly run has all.
DAILY = {"top_k", "4 bit", "low_rank", "dgc", "diloco"}
EVERY = [
    pytest.param(name, marks=[pytest.mark.nightly] * (name not in DAILY))
    for name in METHODS
]
COUNTS = 2 * N  # elements of the largest count, which are of workers and fragments
PARAMS = {name: np.zeros(shape, "f4") for name, shape in SHAPES.items()}


def step_of(tx, carry, grads):
    """A step inside of `jax.shard_map`."""
    params, state = carry
    updates, state = tx.update(of_worker(grads, params), state, params)
    return (applied(params, updates, state), state), updates


@functools.cache
def compiled(name):
    """A step without the types of what varies, and what it begins with."""
    tx, mesh = method(name), mesh_of()
    carry = begin(tx, PARAMS, mesh)
    specs = ox.worker_specs(carry, "data")
    mapped = jax.shard_map(
        functools.partial(step_of, tx),
        mesh=mesh,
        in_specs=(specs, P("data")),
        out_specs=(specs, specs[0]),
        check_vma=False,
    )
    return jax.jit(mapped), carry


def loop(name, grads, carry=None):
    """Updates of all steps, and the last parameters and state."""
    step, first = compiled(name)
    carry, found = first if carry is None else carry, []
    place = NamedSharding(mesh_of(), P("data"))
    for t in range(len(grads["b"])):
        local = jax.tree.map(lambda g, t=t: jax.device_put(g[t], place), grads)
        carry, updates = step(carry, local)
        found.append(updates)
    return jax.tree.map(lambda *u: np.stack(u), *found), carry


def scan(tx, mesh, grads):
    """The same as one program, with its types, which takes the buffers."""
    axes = mesh.axis_names if len(mesh.axis_names) > 1 else mesh.axis_names[0]
    with jax.set_mesh(mesh):
        carry = first_of(tx, PARAMS, axes, workers=mesh.size)
    specs = ox.worker_specs(carry, axes)
    stacked = jax.tree.map(lambda spec: P(None, *spec), specs[0])
    mapped = jax.shard_map(
        lambda *given: jax.lax.scan(functools.partial(step_of, tx), *given),
        mesh=mesh,
        in_specs=(specs, P(None, axes)),
        out_specs=(specs, stacked),
    )
    where = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    carry = jax.device_put(carry, where)
    given = jax.tree.leaves(carry)
    grads = jax.device_put(grads, NamedSharding(mesh, P(None, axes)))
    carry, updates = jax.jit(mapped, donate_argnums=0)(carry, grads)
    assert all(x.is_deleted() for x in given)
    jax.tree.map(
        lambda moved, u: np.testing.assert_allclose(moved, u.sum(axis=0), atol=1e-5),
        carry[0],
        updates,
    )
    return updates, carry


def assert_close(found, expected):
    """Equal but for sums that are rounded elsewhere in another program."""
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-6),
        found,
        expected,
    )


@pytest.mark.parametrize("name", EVERY)
def test_a_scan_with_donated_buffers_is_a_loop(name):
    grads = gradients(STEPS)
    assert_close(scan(method(name), mesh_of(), grads), loop(name, grads))


@pytest.mark.parametrize("name", ["8 bit", "low_rank", "diloco"])
def test_workers_along_two_axes(name):
    grads, mesh = gradients(STEPS), mesh_of((2, 2), names=("data", "model"))
    found = scan(method(name, axis_name=("data", "model")), mesh, grads)
    assert_close(found, loop(name, grads))


@pytest.mark.parametrize("name", EVERY)
def test_zero_gradients(name):
    grads = gradients(2)
    zeros = jax.tree.map(np.zeros_like, grads)
    updates, carry = loop(name, zeros)
    assert not any(map(np.any, jax.tree.leaves(updates)))
    nodes = jax.tree.leaves(carry, is_leaf=is_placed)
    kept = [x for x in nodes if isinstance(x, PerWorker | Divided)]
    assert not any(np.any(x) for x in jax.tree.leaves(kept) if x.size > COUNTS)
    updates, _ = loop(name, grads, carry)  # and it goes on
    updates = jax.tree.leaves(updates)
    assert all(np.isfinite(u).all() and np.any(u) for u in updates)
