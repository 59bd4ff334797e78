"""Steps in one of two processes: process.py ADDRESS NUMBER FILE METHOD..."""

import sys

import jax

jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))

import numpy as np  # noqa: E402

from optax_extras._core.placement import PerShard, is_placed  # noqa: E402

from communication.methods import method, trained  # noqa: E402
from communication.workers import begin, gradients, mesh_of  # noqa: E402


def here(x):
    """What each device of this process has, along a first axis."""
    return np.stack([np.asarray(shard.data) for shard in x.addressable_shards])


def check_halves(carry):
    """Of every array of the workers, this process has those of its two alone."""
    nodes = [x for x in jax.tree.leaves(carry, is_leaf=is_placed) if is_placed(x)]
    assert nodes
    for node in nodes:
        for x in () if isinstance(node, PerShard) else jax.tree.leaves(node.value):
            assert here(x).shape == (2, 1, *x.shape[1:])
            assert x.shape[0] == 4


grads = gradients(5)
params = jax.tree.map(lambda g: np.zeros(g.shape[2:], g.dtype), grads)
found = {}
for name in sys.argv[4:]:
    check_halves(begin(method(name), params, mesh_of()))
    moved, carry = trained(name, grads, take=here)
    check_halves(carry)
    found.update({f"{name}/{leaf}": values for leaf, values in moved.items()})
np.savez(sys.argv[3], **found)
