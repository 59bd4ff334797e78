"""Words that decide on roundings: uniform, independent, and the same everywhere."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from scipy import stats

from optax_extras._core import counters
from optax_extras._core.gaussian import key_words
from optax_extras._core.placement import explicit_sharding

SIZE = 2**18


def of_leaf(name, step=0, key=0, stream="test"):
    """The words of a leaf, uint32[2]."""
    path = (jax.tree_util.DictKey(name),)
    return counters.leaf_words(
        jnp.asarray(key_words(key)), jnp.int32(step), [path], jnp.zeros(()), stream
    )[0]


def uniform(words):
    return np.asarray(words, np.float64) / 2**32


def test_hashes_are_uniform_in_all_bits():
    x = np.asarray(counters.hashed_words(of_leaf("a"), (SIZE,)))
    assert stats.kstest(uniform(x), "uniform").pvalue > 1e-6
    for bit in range(32):
        ones = (x >> bit & 1).mean()
        assert abs(ones - 0.5) < 5 * 0.5 / SIZE**0.5
    # Bytes of the upper half, which round to bfloat16.
    for shift in (16, 24):
        counts = np.bincount(x >> shift & 255, minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 64, 256, 4096])
def test_neighbours_are_independent(lag):
    x = uniform(counters.hashed_words(of_leaf("a"), (SIZE,))) - 0.5
    correlation = (x[lag:] * x[:-lag]).mean() * 12
    assert abs(correlation) < 5 / SIZE**0.5


def test_leaves_steps_keys_and_streams_are_independent():
    draws = [
        uniform(counters.hashed_words(words, (SIZE,))) - 0.5
        for words in (
            of_leaf("a"),
            of_leaf("b"),
            of_leaf("a", step=1),
            of_leaf("a", key=1),
            of_leaf("a", stream="other"),
        )
    ]
    for x, y in itertools.combinations(draws, 2):
        assert abs((x * y).mean() * 12) < 5 / SIZE**0.5
        assert not (x == y).all()


def test_steps_of_one_element_are_uniform():
    """Over 4 096 steps, of 64 elements each."""
    key, steps = jnp.asarray(key_words(0)), jnp.arange(4096)
    path = (jax.tree_util.DictKey("a"),)

    def draw(step):
        own = counters.leaf_words(key, step, [path], step, "test")[0]
        return counters.hashed_words(own, (64,))

    x = uniform(jax.jit(jax.vmap(draw))(steps))
    for element in x.T:
        assert stats.kstest(element, "uniform").pvalue > 1e-6
    successive = ((x[1:] - 0.5) * (x[:-1] - 0.5)).mean() * 12
    assert abs(successive) < 5 / x.size**0.5


def test_hashes_against_numpy():
    """`lowbias32`, with the leaf's words before its multiplications."""
    first, second = np.uint32([123456789, 987654321])
    x = np.arange(1000, dtype=np.uint32) + first
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = ((x ^ (x >> 15)) + second) * np.uint32(0x846CA68B)
    x ^= x >> 16
    found = counters.hashed_words(jnp.uint32([first, second]), (10, 100))
    np.testing.assert_array_equal(found, x.reshape(10, 100))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_hashes_do_not_depend_on_the_mesh(kind):
    words, shape = of_leaf("a"), (8, 6)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind,) * 2)
    where = NamedSharding(mesh, P("x", "y"))

    @jax.jit
    def draw(like):
        drawn = counters.hashed_words(words, like.shape, explicit_sharding(like))
        return jnp.where(like == 0, drawn, 0)

    with jax.set_mesh(mesh):
        sharded = draw(jax.device_put(jnp.zeros(shape), where))
    assert sharded.sharding.is_equivalent_to(where, 2)
    np.testing.assert_array_equal(sharded, counters.hashed_words(words, shape))
