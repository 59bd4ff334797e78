"""Ten million samples: are they Gaussian, and is every one independent of the others?

Seeds are fixed, and every threshold is one that fair samples pass but once in 10⁶.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec as P
from scipy import special, stats

from optax_extras._core import gaussian

SHAPE = (200, 200, 250)
RARE = 1e-6
LAGS = (1, 2, 3, 4, 7, 8, 16, 31, 32, 64, 128)


def draw(tree, key=2026, step=0, stream="test"):
    words = jnp.asarray(gaussian.key_words(key))
    return jax.tree.map(
        np.asarray, gaussian.gaussian_like(words, jnp.int32(step), tree, stream=stream)
    )


@pytest.fixture(scope="module")
def samples():
    return draw(jnp.zeros(SHAPE))


def bound(tests):
    """The deviation, in σ, that the largest of so many exceeds once in 10⁶."""
    return stats.norm.isf(RARE / tests / 2)


def assert_uncorrelated(x, y, tests):
    """Neither the values nor their squares, to which mean and variance would show."""
    limit = bound(2 * tests) / np.sqrt(x.size)
    x, y = x.ravel(), y.ravel()
    assert abs(np.mean(x * y, dtype=np.float64)) < limit
    squares = np.mean((x * x - 1) * (y * y - 1), dtype=np.float64) / 2
    assert abs(squares) < limit


def test_moments_to_the_eighth(samples):
    z = samples.astype(np.float64).ravel()
    power = np.ones_like(z)
    for order in range(1, 9):
        power *= z
        moment = 0 if order % 2 else special.factorial2(order - 1)
        variance = special.factorial2(2 * order - 1) - moment**2
        error = np.sqrt(variance / z.size)
        assert abs(power.mean() - moment) < bound(8) * error, order


def test_kolmogorov_smirnov_and_anderson_darling(samples):
    z = np.sort(samples.astype(np.float64).ravel())
    n = z.size
    below, rank = special.ndtr(z), np.arange(1, n + 1)
    distance = max(np.max(rank / n - below), np.max(below - (rank - 1) / n))
    assert stats.kstwobign.sf(distance * np.sqrt(n)) > RARE
    logs = special.log_ndtr(z) + special.log_ndtr(-z[::-1])
    squared = -n - np.sum((2 * rank - 1) * logs) / n
    # The statistic is Σ χ²₁ / j(j + 1) in the limit; its tail is the first term's.
    assert np.sqrt(3) * stats.chi2.sf(2 * squared, 1) > RARE


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_are_jointly_independent(samples, axis):
    cells = 32
    edges = stats.norm.ppf(np.arange(1, cells) / cells).astype(np.float32)
    bins = np.searchsorted(edges, np.moveaxis(samples, axis, 0))
    pairs = bins[0::2] * cells + bins[1::2]
    counts = np.bincount(pairs.ravel(), minlength=cells**2)
    assert stats.chisquare(counts).pvalue > RARE


@pytest.mark.slow
def test_no_lag_correlates_along_any_axis(samples):
    for axis in range(3):
        moved = np.moveaxis(samples, axis, 0)
        for lag in LAGS:
            assert_uncorrelated(moved[lag:], moved[:-lag], 3 * len(LAGS))


@pytest.mark.slow
def test_leaves_steps_adjacent_keys_and_streams_do_not_correlate():
    shape = jnp.zeros((1000, 1000))
    tree = {"a": shape, "b": [shape, shape]}
    draws = [draw(tree, key, step) for key in (0, 1, 2) for step in (0, 1)]
    draws.append(draw(tree, 0, 0, "other"))
    leaves = [leaf for tree in draws for leaf in jax.tree.leaves(tree)]
    pairs = [(x, y) for i, x in enumerate(leaves) for y in leaves[:i]]
    assert len(pairs) == 210
    for x, y in pairs:
        assert_uncorrelated(x, y, len(pairs))


def test_one_element_over_steps_and_over_keys_is_gaussian():
    steps = jnp.arange(10**6, dtype=jnp.int32)

    def of_step(step):
        return gaussian.gaussian_like(
            jnp.uint32([0, 1]), step, jnp.zeros(2), stream="test"
        )

    def of_key(seed):
        words = jnp.asarray(gaussian.key_words(seed))
        return gaussian.gaussian_like(words, jnp.int32(0), jnp.zeros(2), stream="test")

    for function in (of_step, of_key):
        z = np.asarray(jax.jit(jax.vmap(function))(steps))
        assert stats.kstest(z.ravel(), "norm").pvalue > RARE
        assert_uncorrelated(z[:, 0], z[:, 1], 2)
        for lag in LAGS:
            assert_uncorrelated(z[lag:], z[:-lag], 2 * len(LAGS))


def test_shards_do_not_correlate():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))

    def shard(leaf):
        words = gaussian.fold_axis_index(jnp.uint32([0, 1]), "x")
        return gaussian.gaussian_like(words, jnp.int32(0), leaf, stream="test")

    mapped = jax.shard_map(shard, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    shards = np.asarray(jax.jit(mapped)(jnp.zeros((8, 10**6))))
    for i in range(8):
        for j in range(i):
            assert_uncorrelated(shards[i], shards[j], 28)
