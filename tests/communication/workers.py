"""Steps of a transformation on several workers, each with gradients of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import optax_extras as ox

N = 4
SHAPES = {"b": (5,), "e": (1100,), "w": (40, 30)}  # dense, and two that are compressed


def mesh_of(workers=N, kind=AxisType.Auto, names=("data",)):
    """A mesh of the first devices."""
    shape = workers if isinstance(workers, tuple) else (workers,)
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape), devices=devices)


def gradients(steps, workers=N, shapes=SHAPES, seed=0):
    """Gradients of all steps and workers, (steps, workers, *shape) of each leaf."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(steps, workers, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def start(tx, params, mesh):
    """State and specs outside of `jax.shard_map`."""
    with jax.set_mesh(mesh):
        state = tx.init(params)
    return state, ox.worker_specs(state, mesh.axis_names[0])


def begin(tx, params, mesh):
    """First parameters and state, on the devices of a mesh."""
    with jax.set_mesh(mesh):
        axis = mesh.axis_names[0]
        return first_of(tx, params, axis, mesh.shape[axis])


def first_of(tx, params, axis, workers):
    """Parameters, of each worker if workers train alone, and state."""
    state = tx.init(params)
    if any(map(_is_local, jax.tree.leaves(state, is_leaf=_is_local))):
        params = ox.worker_params(params, axis, workers=workers)
    return params, state


def _is_local(node):
    return type(node).__name__ == "LocalUpdatesState"


def of_worker(grads, params):
    """Gradients of this worker, (1, ...), as its parameters are given."""
    if isinstance(params, ox.PerWorker):
        return ox.PerWorker(grads)
    return jax.tree.map(lambda g: g[0], grads)


def applied(params, updates, state):
    """Parameters after a step of any method."""
    if isinstance(params, ox.PerWorker):
        return ox.apply_local_updates(params, updates, state)
    return optax.apply_updates(params, updates)


def step_of(tx, mesh, specs, check_vma=True):
    """A compiled step from (gradients of all workers, state, params) to updates."""

    def update(grads, state, params):
        return tx.update(jax.tree.map(lambda g: g[0], grads), state, params)

    axis = P(mesh.axis_names[0])
    return jax.jit(
        jax.shard_map(
            update,
            mesh=mesh,
            in_specs=(axis, specs, P()),
            out_specs=(P(), specs),
            check_vma=check_vma,
        )
    )


def run(tx, grads, mesh=None, state=None, check_vma=True, take=np.asarray):
    """What is taken of the updates of all steps, and the state behind them."""
    mesh = mesh_of() if mesh is None else mesh
    params = jax.tree.map(lambda g: jnp.zeros(g.shape[2:], g.dtype), grads)
    first, specs = start(tx, params, mesh)
    state = first if state is None else state
    step = step_of(tx, mesh, specs, check_vma)
    params = jax.device_put(params, NamedSharding(mesh, P()))
    placed = NamedSharding(mesh, P(mesh.axis_names[0]))
    found = []
    for number in range(len(next(iter(grads.values())))):
        local = jax.tree.map(lambda g, i=number: jax.device_put(g[i], placed), grads)
        updates, state = step(local, state, params)
        found.append(jax.tree.map(take, updates))
    return jax.tree.map(lambda *u: np.stack(u), *found), state
