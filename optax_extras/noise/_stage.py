"""The stage of a chain that adds Gaussian noise of any standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, gaussian, leaves
from optax_extras._core.opaque import opaque
from optax_extras.typing import AxisName, KeyLike


class AddNoiseState(NamedTuple):
    """State of the transformations that add noise."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    key: jax.Array  # words of the user's key, the same at every step; uint32[2]


class Draw(NamedTuple):
    """`scale` times the standard Gaussian noise drawn for `step`."""

    scale: jax.Array  # float32[] or float64[]
    step: jax.Array  # int32[]


def add_noise(
    draws: Callable[[jax.Array, Any], Sequence[Draw]],
    *,
    stream: str,
    key: KeyLike,
    axis_name: AxisName | None = None,
    complex_gain: float = 1.0,
    one_use: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adds the sum of the draws that `draws(count, dtype)` returns.

    Args:
      draws: returns the draws of a step, given the count and the dtype of scalars.
      stream: the name of the random stream.
      key: the user's key.
      axis_name: mapped axes along which the noise differs.
      complex_gain: factor of the noise of complex leaves. At 1, the real and the
        imaginary part each have variance 1/2.
      one_use: whether the noisy updates have a single elementwise consumer, into which
        XLA can fuse the draw. If not, they are written to memory once.
    """
    words = gaussian.key_words(key)

    def init(params: optax.Params) -> AddNoiseState:
        del params
        return AddNoiseState(
            count=jnp.zeros((), jnp.int32), key=jnp.array(words, jnp.uint32)
        )

    def update(
        updates: optax.Updates,
        state: AddNoiseState,
        params: optax.Params | None = None,
        *,
        key: KeyLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AddNoiseState]:
        del params, extra_args
        checks.check_inexact("updates", updates)
        sample = gaussian.step_words(state.key, key)
        if axis_name is not None:
            sample = gaussian.fold_axis_index(sample, axis_name)
        drawn = draws(state.count, dtypes.statistic_dtype(updates))

        def add(g: Any, *noise: jax.Array) -> jax.Array:
            gain = complex_gain if jnp.iscomplexobj(g) else 1.0
            scales = (gain * draw.scale for draw in drawn)
            return leaves.add_scaled(g, *zip(scales, noise, strict=True))

        def make_noisy(updates: optax.Updates) -> optax.Updates:
            noise = [
                gaussian.gaussian_like(sample, draw.step, updates, stream=stream)
                for draw in drawn
            ]
            return jax.tree.map(add, updates, *noise)

        if one_use:
            noisy = make_noisy(updates)
        else:
            together, alone = gaussian.split_groups(updates)
            drawn_alone = opaque(make_noisy, state.count, alone)
            noisy = leaves.fill(drawn_alone, make_noisy(together))
        return noisy, AddNoiseState(optax.safe_increment(state.count), state.key)

    return optax.GradientTransformationExtraArgs(init, update)
