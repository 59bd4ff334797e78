"""Training of parameters that each worker has for itself."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P

import optax_extras as ox

from communication.workers import mesh_of


def start(tx, params, mesh):
    """Parameters of each worker and state, placed, and their specs."""
    axis = mesh.axis_names[0]
    with jax.set_mesh(mesh):
        carry = (
            ox.worker_params(params, axis, workers=mesh.shape[axis]),
            tx.init(params),
        )
    specs = ox.worker_specs(carry, axis)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return jax.device_put(carry, shardings), specs


def step_of(tx, mesh, specs, check_vma=True, donate=False, weighted=False):
    """A compiled step from (carry, gradients of all workers, weights) to a carry."""

    def step(carry, grads, weights):
        params, state = carry
        options = {"weight": weights} if weighted else {}
        updates, state = tx.update(ox.PerWorker(grads), state, params, **options)
        return ox.apply_local_updates(params, updates, state), state

    axis = P(mesh.axis_names[0])
    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(specs, axis, axis),
        out_specs=specs,
        check_vma=check_vma,
    )
    return jax.jit(mapped, donate_argnums=0 if donate else ())


def run(
    tx,
    params,
    grads,
    mesh=None,
    weights=None,
    carry=None,
    check_vma=True,
    take=np.asarray,
):
    """What is taken of the parameters after each step, and the carry behind them.

    Gradients have the shapes (steps, workers, *shape), weights (steps, workers).
    """
    mesh = mesh_of() if mesh is None else mesh
    first, specs = start(tx, params, mesh)
    carry = first if carry is None else carry
    step = step_of(tx, mesh, specs, check_vma, weighted=weights is not None)
    placed = NamedSharding(mesh, P(mesh.axis_names[0]))
    steps = len(jax.tree.leaves(grads)[0])
    given = np.ones((steps, mesh.size), np.float32) if weights is None else weights
    found = []
    for number in range(steps):
        here = jax.tree.map(lambda x, i=number: x[i], (grads, given))
        carry = step(carry, *jax.device_put(here, placed))
        found.append(jax.tree.map(take, carry[0].value))
    return jax.tree.map(lambda *x: np.stack(x), *found), carry


def parameters(shapes, seed=5):
    """Normal parameters."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.normal(size=shape), jnp.float32)
        for name, shape in shapes.items()
    }
