"""Codes of given numbers with given random words, for tests of codecs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def words(shape, seed=1):
    """Random words of a shape."""
    return np.random.default_rng(seed).integers(0, 2**32, shape, np.uint32)


def coded(codec, x, drawn):
    """A code, and what is left of the numbers."""
    code, found = _coded(codec, jnp.asarray(x), jnp.asarray(drawn, jnp.uint32))
    return code, np.asarray(found)


@functools.partial(jax.jit, static_argnums=0)
def _coded(codec, x, drawn):
    code = codec.encode(x, codec.statistics(x), drawn)
    return code, codec.decode(code, x.shape)
