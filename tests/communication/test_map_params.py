"""`optax.tree.map_params` on states that have parts for each worker."""

import jax
import jax.numpy as jnp
import optax
import pytest

from optax_extras._core.placement import PerWorker, is_placed

from communication.methods import LOCAL, METHODS, method
from communication.training import PARAMS
from communication.workers import begin, mesh_of


@pytest.mark.parametrize("name", METHODS)
def test_residuals_are_found_and_the_rest_is_kept(name):
    tx = method(name)
    _, state = begin(tx, PARAMS, mesh_of())
    mapped = optax.tree.map_params(tx, lambda x: x + 1, state)
    assert jax.tree.map(jnp.shape, mapped) == jax.tree.map(jnp.shape, state)
    nodes = jax.tree.leaves(mapped, is_leaf=is_placed)
    kept = jax.tree.leaves([x for x in nodes if isinstance(x, PerWorker)])
    if name in LOCAL:
        kept += jax.tree.leaves(mapped.reference)
    assert kept
    for x in kept:  # counts and weights of workers are no parameters
        assert (x == (x.size >= PARAMS["b"].size)).all()
