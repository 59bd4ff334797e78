"""The stage of a chain that adds Gaussian noise, for every kind of it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras import _numerics, _random, _validation
from optax_extras._opaque import opaque

# Standard Gaussian noise of a step, int32[], times a 0-d factor.
Term = tuple[jax.Array, jax.Array]


def add_noise(
    make_state: Callable[..., Any],
    terms: Callable[[jax.Array, Any], Sequence[Term]],
    *,
    stream: str,
    key: Any,
    axis_name: Any,
    complex_gain: float = 1.0,
    one_use: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adds the sum of `terms(count, dtype)`, pairs of a factor and a step to draw.

    The state, made of `count` and `key`, holds the updates so far, int32[], and the
    words of the user's key, uint32[2]. `complex_gain` multiplies the noise of complex
    leaves, whose real and imaginary parts have variance 1/2. `one_use` says that the
    noisy updates have one elementwise consumer, into which XLA may fuse the draw;
    otherwise they are drawn into memory once.
    """
    words = _random.key_words(key)

    def init(params: optax.Params) -> Any:
        del params
        return make_state(
            count=jnp.zeros((), jnp.int32), key=jnp.array(words, jnp.uint32)
        )

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        key: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del params, extra_args
        _validation.inexact_leaves("updates", updates)
        sample = state.key if key is None else jnp.asarray(_random.key_words(key))
        if axis_name is not None:
            sample = _random.fold_axis_index(sample, axis_name)
        factors, steps = zip(
            *terms(state.count, _numerics.statistic_dtype(updates)), strict=True
        )

        def add(g: Any, *z: jax.Array) -> jax.Array:
            gain = complex_gain if jnp.iscomplexobj(g) else 1.0
            return _numerics.add_scaled(
                g, *((gain * factor, z) for factor, z in zip(factors, z, strict=True))
            )

        def make_noisy(updates: optax.Updates) -> optax.Updates:
            noise = [
                _random.gaussian_like(sample, step, updates, stream=stream)
                for step in steps
            ]
            return jax.tree.map(add, updates, *noise)

        if one_use:
            noisy = make_noisy(updates)
        else:
            together, alone = _random.split_groups(updates)
            noisy = jax.tree.map(
                lambda one, other: one if other is None else other,
                make_noisy(together),
                opaque(make_noisy, state.count, alone),
                is_leaf=_validation.is_none,
            )
        return noisy, make_state(optax.safe_increment(state.count), state.key)

    return optax.GradientTransformationExtraArgs(init, update)
