"""Integers packed into bytes, and arrays as bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_extras.compressors import from_bytes, pack, to_bytes, unpack


@pytest.mark.daily("33-*", "7-*", "0-1")
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16, 32])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 33])
def test_packed_integers_come_back(bits, n):
    rng = np.random.default_rng(n)
    x = rng.integers(0, 2**bits, size=(3, n), dtype=np.uint64).astype(np.uint32)
    data = jax.jit(pack, static_argnums=1)(jnp.asarray(x), bits)
    assert data.dtype == jnp.uint8
    assert data.shape == (3, -(-n * bits // 8))
    np.testing.assert_array_equal(unpack(data, bits, n), x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.uint8, jnp.int32])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_bytes_come_back(dtype, shape):
    x = jnp.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    data = to_bytes(x)
    assert data.shape == (x.nbytes,)
    np.testing.assert_array_equal(from_bytes(data, shape, dtype), x)
