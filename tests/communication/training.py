"""Least squares on several workers; as a process, training.py FOLDER STEPS METHOD...

The process goes on from the last checkpoint in the folder, begins to save one every
third step, and kills itself after so many steps.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec as P

import optax_extras as ox

from communication.methods import method
from communication.workers import applied, begin, first_of, mesh_of

PARAMS = {"b": jnp.zeros(30), "w": jnp.zeros((40, 30))}
ROWS = 48  # of a batch, over all workers


def loss(params, batch):
    x, y = batch
    return jnp.mean((x @ params["w"] + params["b"][None] - y) ** 2)


def batch_of(step):
    x = jax.random.normal(jax.random.fold_in(jax.random.key(0), step), (ROWS, 40))
    y = x @ jnp.linspace(-1, 1, 40 * 30).reshape(40, 30) + 1
    return x, y


def training_step(tx, mesh, specs):
    """From parameters, state and batch to new ones, and the loss."""

    def step(params, state, batch):
        value, grads = ox.local_value_and_grad(loss, mesh.axis_names)(params, batch)
        updates, state = tx.update(grads, state, params)
        value = jax.lax.pmean(value, mesh.axis_names)
        return applied(params, updates, state), state, value

    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(*specs, P(mesh.axis_names)),
        out_specs=(*specs, P()),
    )
    return jax.jit(mapped)


def train(tx, mesh, carry, first=0):
    """Parameters, state and loss of each step from a first one on."""
    specs = ox.worker_specs(carry, "data")
    step = training_step(tx, mesh, specs)
    carry = jax.device_put(carry, shardings(mesh, specs))
    for number in itertools.count(first):
        batch = jax.device_put(batch_of(number), NamedSharding(mesh, P("data")))
        *carry, value = step(*carry, batch)
        yield *carry, float(value)


def shardings(mesh, specs):
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def abstract(tx, mesh):
    """Parameters and state of a start, as shapes on the devices of a mesh."""
    with jax.set_mesh(mesh):
        carry = jax.eval_shape(lambda: first_of(tx, PARAMS, "data", mesh.size))
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        carry,
        shardings(mesh, ox.worker_specs(carry, "data")),
    )


def last_checkpoint(folder):
    """The last step whose checkpoint was written to its end; 0 for none."""
    names = (path.name for path in folder.iterdir())
    return max((int(name) for name in names if name.isdigit()), default=0)


def main(folder, steps, names):
    mesh, first = mesh_of(), last_checkpoint(folder)
    txs = {name: method(name) for name in names}
    runs = {name: begin(tx, PARAMS, mesh) for name, tx in txs.items()}
    checkpointer = ocp.StandardCheckpointer()
    if first:
        like = {name: abstract(tx, mesh) for name, tx in txs.items()}
        runs = checkpointer.restore(folder / str(first), like)
    generators = [train(tx, mesh, runs[name], first) for name, tx in txs.items()]
    for number, found in enumerate(zip(*generators, strict=True), first + 1):
        if number % 3 == 0:
            trees = [(params, state) for params, state, _ in found]
            checkpointer.save(
                folder / str(number), dict(zip(names, trees, strict=True))
            )
        if number == steps:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
