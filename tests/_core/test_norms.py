"""Norms of trees on one device and on several."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec as P

from optax_extras._core.norms import global_norm, inner_product

TREE = {"a": jnp.arange(8.0), "b": jnp.ones((2, 2), jnp.bfloat16), "n": None}


def test_it_is_that_of_all_numbers():
    expected = np.sqrt(np.sum(np.arange(8.0) ** 2) + 4)
    np.testing.assert_allclose(global_norm(TREE), expected, rtol=1e-6)
    assert global_norm(TREE).dtype == jnp.float32
    assert global_norm({}) == 0


def test_half_precision_is_summed_in_single():
    np.testing.assert_allclose(global_norm(jnp.full(10_000, 1.0, jnp.float16)), 100)
    assert global_norm(jnp.full(4, 1e4, jnp.float16)) == 2e4


def test_complex_and_double_precision(x64):
    assert global_norm(jnp.array([3 + 4j])) == 5
    assert global_norm(jnp.ones(4)).dtype == jnp.float64


def test_shards_are_summed_and_workers_are_not():
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def norms(sharded, same):
        both = {"sharded": sharded, "same": same}
        alone = global_norm(jax.lax.pcast(same, "data", to="varying"), ["data"])
        return global_norm(both), global_norm(both, ["data"])[None], alone[None]

    together, per_worker, alone = jax.shard_map(
        norms,
        mesh=mesh,
        in_specs=(P(("data", "model")), P()),
        out_specs=(P(), P("data"), P("data")),
    )(jnp.arange(8.0), jnp.ones(4))
    np.testing.assert_allclose(together, np.sqrt(140 + 4), rtol=1e-6)
    halves = [np.sum(np.arange(4.0) ** 2), np.sum(np.arange(4.0, 8.0) ** 2)]
    np.testing.assert_allclose(per_worker, np.sqrt(np.add(halves, 4)), rtol=1e-6)
    np.testing.assert_allclose(alone, [2, 2])


def test_the_inner_product_is_that_of_all_numbers():
    other = {"a": jnp.full(8, 2.0), "b": jnp.full((2, 2), 3.0), "n": jnp.ones(3)}
    for found in (inner_product(TREE, other), inner_product(other, TREE)):
        assert found == 2 * 28 + 12
        assert found.dtype == jnp.float32
    assert inner_product({}, {}) == 0
    halves = jnp.full(10_000, 1.0, jnp.float16)
    assert inner_product(halves, halves) == 10_000


def test_the_inner_product_of_complex_numbers_is_that_of_their_parts(x64):
    x, y = jnp.array([1 + 2j, 3.0]), jnp.array([4 - 5j, 1j])
    assert inner_product(x, y) == 1 * 4 - 2 * 5
    assert inner_product(x, x) == global_norm(x) ** 2 == 14
    assert inner_product(jnp.ones(4), jnp.ones(4)).dtype == jnp.float64


def test_products_of_shards_and_of_workers_are_summed():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))

    def products(sharded, same):
        both = {"sharded": sharded, "same": same}
        return inner_product(both, both), inner_product(sharded, same)

    together, own = jax.shard_map(
        products, mesh=mesh, in_specs=(P("x"), P()), out_specs=P()
    )(jnp.arange(8.0), jnp.full(1, 2.0))
    assert together == 140 + 4
    assert own == 2 * 28
