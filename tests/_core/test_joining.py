"""Arrays joined and parted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_extras._core.joining import joined, parted


@pytest.mark.parametrize("lengths", [[3], [0, 2, 1], [2, 2, 2, 0]])
def test_parts_come_back(lengths):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, 2)).astype(np.float32) for n in lengths]
    found = jax.jit(lambda x: parted(joined(x), lengths))(arrays)
    for before, after in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(before, after)


def test_parts_along_another_axis():
    whole = jnp.arange(12.0).reshape(2, 6)
    found = parted(whole, [1, 3, 2], axis=1)
    for part, expected in zip(found, np.split(whole, [1, 4], axis=1), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_parts_start_at_variables():
    """Or XLA compiles a kernel for each of hundreds of leaves."""

    def tanh(whole):
        return [jnp.tanh(x) * 2 for x in parted(whole, [64] * 8)]

    text = jax.jit(tanh).lower(jnp.zeros(512)).compile().as_text()
    assert "dynamic-slice(" in text
    assert "slice={[" not in text
