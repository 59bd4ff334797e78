"""Gaussian noise for a whole tree: transformations draw all noise here.

The two words of an element's block of Threefry, see `counters`, are the radius and the
angle of a Box-Muller pair.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType

from optax_extras._core import counters, paths
from optax_extras._core.opaque import opaque
from optax_extras._core.placement import explicit_sharding

# Minimax fits: (log(1 + f) - f + f**2 / 2) / f**3 on [sqrt(1/2) - 1, sqrt(2) - 1] with
# error 3e-8 relative to the logarithm, and sin(pi x / 2) / x in x**2 with error 4e-9.
# fmt: off
_LOG = (
    0.3333391, -0.25001338, 0.19963062, -0.16577587, 0.14914787, -0.14267476,
    0.087003596,
)
# fmt: on
_SIN = (1.5707963, -0.64596337, 0.07968848, -0.004672228, 0.00015082056)
# A leaf of at least this many elements, 4 MiB of float32, is drawn alone.
_LARGE = 2**20
_KEY_FORMS = "an int, a key from `jax.random.key`, or the uint32 words of one"


def key_words(key: Any) -> Any:
    """The two uint32 words that stand for a user's key.

    An int from 0 to 2**32 - 1 gives the words of `jax.random.key(int)`; an
    int may have up to 64 bits, and a negative one is sign-extended. A key of more words
    is hashed to two. A concrete array is copied.
    """
    if isinstance(key, np.ndarray) and not key.ndim:
        key = key[()]
    if isinstance(key, (bool, np.bool_)) or not isinstance(
        key, (int, np.integer, np.ndarray, jax.Array)
    ):
        raise TypeError(f"`key` must be {_KEY_FORMS}, got {key!r}")
    if isinstance(key, (int, np.integer)):
        if not -(2**63) <= key < 2**64:
            raise ValueError(f"`key` must fit in 64 bits, got {key}")
        return np.array([int(key) >> 32 & 0xFFFFFFFF, int(key) & 0xFFFFFFFF], np.uint32)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise ValueError(
                f"`key` must be a single key, got an array of shape {key.shape};"
                " use `jax.vmap` over keys"
            )
        return _fold_words(jnp.array(jax.random.key_data(key)))
    if jnp.issubdtype(key.dtype, jnp.integer) and not key.ndim:
        return _seed_words(key)
    if key.dtype == jnp.uint32 and key.ndim == 1 and key.size in (2, 4):
        return _fold_words(jnp.array(key))
    raise TypeError(f"`key` must be {_KEY_FORMS}, got {key.dtype} of shape {key.shape}")


def step_words(own: jax.Array, key: Any) -> jax.Array:
    """The words of a step: those of a state, or of a key given to its `update`."""
    return own if key is None else jnp.asarray(key_words(key))


def fold_axis_index(words: jax.Array, axis_name: Any) -> jax.Array:
    """Folds the index along a mapped axis, or a tuple of axes, into the words."""
    domain, _ = paths.hash_words("axis_index")
    index = lax.axis_index(axis_name).astype(jnp.uint32)
    return jnp.stack(counters.threefry2x32(words, domain, index))


@functools.partial(jax.jit, static_argnames="stream")
def gaussian_like(words: jax.Array, step: jax.Array, tree: Any, *, stream: str) -> Any:
    """Standard Gaussian noise in the structure and shapes of `tree`.

    Args:
      words: uint32[2] from `key_words`.
      step: int32[], the step the noise is for.
      tree: floating-point or complex arrays, whose values are not used. Inside of
        `slices`, either one of them or `step` must be the slice's own.
      stream: a name for the purpose; draws with one key differ between streams.

    Returns:
      float32 leaves of mean 0 and variance 1; complex64 leaves, circular and of
      variance 1, where `tree` is complex. XLA repeats the draw of a leaf that is drawn
      alone (see `split_groups`) in each consumer that is not inside `opaque`.
    """
    flat, treedef = jax.tree.flatten_with_path(tree)
    if not flat:
        return tree
    leaf_words = counters.leaf_words(
        words, step, [path for path, _ in flat], flat[0][1], stream
    )
    groups = _groups(tree)

    def draw_groups(leaf_words: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        stacks = [
            jax.vmap(_draw, (0, None))(leaf_words[np.array(members)], kind)
            for kind, members in groups.items()
        ]
        # With run-time positions, the code that uses a kind is the same for each leaf.
        zero = jnp.minimum(step, 0).astype(jnp.uint32)
        positions = range(max(map(len, groups.values())))
        return stacks, [zero + np.uint32(position) for position in positions]

    noise: list[Any] = [None] * len(flat)
    if groups:
        stacks, positions = opaque(draw_groups, step, leaf_words)
        for members, stack in zip(groups.values(), stacks, strict=True):
            for i, position in zip(members, positions, strict=False):
                noise[i] = lax.dynamic_index_in_dim(stack, position, keepdims=False)
    for i, (_, leaf) in enumerate(flat):
        if noise[i] is None:
            noise[i] = _draw(leaf_words[i], _kind(leaf))
    return jax.tree.unflatten(treedef, noise)


def split_groups(tree: Any) -> tuple[Any, Any]:
    """Splits `tree` into leaves drawn in groups and leaves drawn alone, else None."""
    treedef: Any
    leaves, treedef = jax.tree.flatten(tree)
    together = {i for members in _groups(tree).values() for i in members}
    return (
        treedef.unflatten([x if i in together else None for i, x in enumerate(leaves)]),
        treedef.unflatten([None if i in together else x for i, x in enumerate(leaves)]),
    )


class _Kind(NamedTuple):
    """The properties of a leaf on which its draw depends."""

    shape: tuple[int, ...]
    is_complex: bool
    sharding: Any  # the leaf's on an explicit mesh; otherwise None


def _kind(leaf: Any) -> _Kind:
    return _Kind(jnp.shape(leaf), jnp.iscomplexobj(leaf), explicit_sharding(leaf))


def _groups(tree: Any) -> dict[_Kind, list[int]]:
    """Positions of the leaves that one generator draws together, by kind.

    Drawing a kind at once compiles faster and needs memory for the noise. Large leaves,
    leaves that are the only one of their kind, and leaves whose layout over several
    devices is not known are drawn alone.
    """
    kinds: dict[_Kind, list[int]] = {}
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        if math.prod(jnp.shape(leaf)) < _LARGE and _layout_is_known(leaf):
            kinds.setdefault(_kind(leaf), []).append(i)
    return {kind: i for kind, i in kinds.items() if len(i) > 1}


def _layout_is_known(leaf: Any) -> bool:
    """Whether tracing tells how a leaf is sharded.

    It does on one device, inside a `jax.shard_map` over all axes, and on an explicit
    mesh. The compiler alone knows the sharding over an Auto axis: leaves of one shape
    may then be sharded in different ways, which a common draw would have to exchange.
    """
    axes = jax.typeof(leaf).sharding.mesh.axis_types
    return jax.device_count() == 1 or (bool(axes) and AxisType.Auto not in axes)


def _draw(words: jax.Array, kind: _Kind) -> jax.Array:
    high, low = counters.element_index(kind.shape, kind.sharding)
    bits = counters.threefry2x32(words, high, low)
    return _box_muller(*bits, kind.is_complex)


def _box_muller(radius_bits: jax.Array, angle_bits: jax.Array, pair: bool) -> jax.Array:
    """Maps two uint32 words to a real or to a circular complex Gaussian sample.

    Let u be the upper 31 bits of the first word, as a float32 in (0, 1], and s the
    second word as a float32 in [-1, 1]. A real sample is sqrt(-2 log u) sin(pi s / 2),
    for which half a turn of the angle is enough; a complex one is
    sqrt(-log u) exp(i pi s). Polynomials replace the backend's functions, so that the
    bits are the same in every vector layout.
    """
    s = angle_bits.astype(jnp.int32).astype(jnp.float32) * np.float32(2**-31)
    minus_log = _minus_log_uniform(radius_bits)
    if not pair:
        return jnp.sqrt(2 * minus_log) * _sin_half_pi(s)
    turned = jnp.where(jnp.abs(s) > 0.5, jnp.sign(s) * 2 - 2 * s, 2 * s)
    radius = jnp.sqrt(minus_log)
    return lax.complex(
        radius * _sin_half_pi(1 - 2 * jnp.abs(s)), radius * _sin_half_pi(turned)
    )


def _minus_log_uniform(bits: jax.Array) -> jax.Array:
    """-log(u) for u = (upper 31 bits + 1/2) / 2**31; relative error below 2e-7."""
    scaled = (bits >> np.uint32(1)).astype(jnp.int32).astype(jnp.float32)
    pattern = lax.bitcast_convert_type(scaled + np.float32(0.5), jnp.int32)
    # u = 2**exponent (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)).
    exponent = (pattern - np.int32(0x3F3504F3)) >> 23
    f = lax.bitcast_convert_type(pattern - (exponent << 23), jnp.float32) - 1
    log = f - f * f * (np.float32(0.5) - f * _polynomial(_LOG, f))
    return (31 - exponent).astype(jnp.float32) * np.float32(math.log(2)) - log


def _sin_half_pi(x: jax.Array) -> jax.Array:
    """sin(pi x / 2) on [-1, 1]; relative error below 3e-7."""
    return x * _polynomial(_SIN, x * x)


def _polynomial(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    result = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result * x + np.float32(coefficient)
    return result


def _seed_words(seed: Any) -> jax.Array:
    """Words of an integer array, sign-extended to 64 bits like a Python int."""
    seed = jnp.asarray(seed)
    if seed.dtype.itemsize == 8:
        high = (seed >> 32).astype(jnp.uint32)
    elif jnp.issubdtype(seed.dtype, jnp.signedinteger):
        high = jnp.where(seed < 0, np.uint32(0xFFFFFFFF), np.uint32(0))
    else:
        high = jnp.zeros((), jnp.uint32)
    return jnp.stack([high, seed.astype(jnp.uint32)])


def _fold_words(words: Any) -> Any:
    if words.size == 2:
        return words
    first, second, high, low = words
    return jnp.stack(counters.threefry2x32((first, second), high, low))
