"""The selection of the largest elements, and leaves that are compressed together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_extras import compressors as c
from optax_extras.compressors import _compressor, _sparse

from communication.test_mean import mean_of
from communication.workers import gradients, run


@pytest.mark.parametrize("width", [256, 257, 300, 1000, 4096])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_largest_are_those_of_a_sort(width, k):
    x = np.random.default_rng(width).normal(size=(5, width)).astype(np.float32)
    found = np.asarray(jax.jit(_sparse._largest, static_argnums=1)(x, k))
    expected = np.argsort(-np.abs(x), axis=1)[:, :k]
    np.testing.assert_array_equal(np.sort(found), np.sort(expected))


@pytest.mark.parametrize("nonzero", [0, 2])
def test_what_fills_the_last_square_is_never_selected(nonzero):
    x = np.zeros((1, 270), np.float32)
    x[0, 270 - nonzero :] = 1
    found = np.asarray(_sparse._largest(jnp.asarray(x), 8))[0]
    assert found.max() < 270
    assert len(set(found.tolist())) == 8
    assert set(range(270 - nonzero, 270)) <= set(found.tolist())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_selected(bad):
    x = np.ones((1, 512), np.float32)
    x[0, 300] = bad
    assert 300 in np.asarray(_sparse._largest(jnp.asarray(x), 2))[0]


@pytest.mark.nightly
@pytest.mark.parametrize(
    "compressor",
    [
        c.top_k(0.1, chunk=64, bits=2),
        c.dct_top_k(8, chunk=16),
        c.random_k(0.1, key=1),
        c.quantized(4),
        c.low_rank(2),
    ],
    ids=["top_k", "dct_top_k", "random_k", "4 bit", "low_rank"],
)
def test_leaves_of_one_shape_are_as_alone(compressor, monkeypatch):
    shapes = {"a": (40, 30), "b": (5,), "w": (40, 30), "x": (30, 40), "y": (40, 30)}
    grads = gradients(3, shapes=shapes)
    together, _ = run(mean_of(compressor), grads)
    monkeypatch.setattr(_compressor, "ALONE", 0)
    alone, _ = run(mean_of(compressor), grads)
    for name in shapes:
        np.testing.assert_allclose(together[name], alone[name], atol=1e-5)
