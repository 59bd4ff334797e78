"""Clipping of gradient norms far above their moving average (Kumar et al. 2025)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, norms, scalars
from optax_extras.clipping._norm import clipped
from optax_extras.typing import Scalar

_EPS = 1e-6


class ClipByZScoreState(NamedTuple):
    """State of `clip_by_zscore`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    seen: jax.Array  # those of them with a finite norm; int32[]
    mean: jax.Array  # μ, of norms; float32[] or float64[]
    stddev: jax.Array  # σ, of norms; float32[] or float64[]


def clip_by_zscore(
    threshold: Scalar = 2.5,
    *,
    decay: Scalar = 0.97,
    warmup: int | jax.Array = 25,
) -> optax.GradientTransformationExtraArgs:
    r"""Clips gradient norms that are far above their moving average (ZClip).

    Use it in front of any optimizer where rare spikes should take a short step and
    other gradients should stay as they are. Unlike a fixed clipping norm it follows the
    norms as they change, within about 1 / (1 − ``decay``) steps. To lose the step
    altogether, and for NaN, use `skip_spikes` around the optimizer.

    With the norm n of all gradients together, ``threshold`` k and ``decay`` α:

    .. math::

        z = \frac{n - \mu}{\sigma + 10^{-6}}, \qquad
        c = \begin{cases} \mu + k^2 \sigma / z & z > k \\ n & \text{else} \end{cases}

    The gradient is scaled to the norm c, which is the smaller the higher z is. Then c
    enters the mean, and after it the variance:

    .. math::

        \mu' = \alpha \mu + (1 - \alpha) c, \qquad
        \sigma'^2 = \alpha \sigma^2 + (1 - \alpha) (c - \mu')^2

    The first ``warmup`` gradients are not clipped, and μ and σ are the mean and the
    standard deviation of their norms.

    A norm that is not finite enters nothing, and such a gradient passes as it is. Norms
    that never vary, as those of signs, have a σ of 0, and none above μ is let through:
    where they rise, the clip does not. In half precision, the scaled gradient is
    rounded once, and its norm may be above c by the rounding.

    *Differences from the source*: the authors' code also clips to a norm of 1 at first,
    and divides by n + 10⁻⁶. Norms that were all zero, with a mean of zero, clip
    nothing; there, all that follow would become zero. The mean and the standard
    deviation of the warm-up are computed as it goes, without storing its norms.

    Args:
      threshold: k, above 0; a number or a 0-d array.
      decay: α in [0, 1); a number or a 0-d array.
      warmup: gradients that are not clipped, at least 1; an int or a 0-d array.

    Returns:
      A gradient transformation, a stage for `optax.chain` in front of an optimizer. Its
      state is four numbers.

    Raises:
      ValueError: a number is out of its range.
      TypeError: an argument has the wrong type, or a gradient is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax.chain(optax_extras.clip_by_zscore(), optax.sgd(0.05))
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for step in range(60):
      ...     grads = jax.grad(loss)(params) * (1000 if step == 40 else 1)
      ...     updates, state = optimizer.update(grads, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.001)
      True

    References:
      Kumar et al. 2025, "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", arXiv
      2504.02507
    """
    threshold = checks.positive("threshold", threshold)
    decay = checks.decay("decay", decay)
    warmup = checks.steps("warmup", warmup)

    def init(params: optax.Params) -> ClipByZScoreState:
        checks.check_inexact("params", params)
        dtype = dtypes.statistic_dtype(params)
        return ClipByZScoreState(
            count=jnp.zeros((), jnp.int32),
            seen=jnp.zeros((), jnp.int32),
            mean=jnp.zeros((), dtype),
            stddev=jnp.zeros((), dtype),
        )

    def update(
        updates: optax.Updates,
        state: ClipByZScoreState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ClipByZScoreState]:
        del params, extra_args
        checks.check_inexact("updates", updates)
        dtype = state.mean.dtype
        norm = norms.global_norm(updates).astype(dtype)
        is_finite = jnp.isfinite(norm)
        # As NaN times zero is NaN, and norms are compared and averaged below.
        known = jnp.where(is_finite, norm, state.mean)
        is_warm = state.seen.astype(dtype) >= scalars.scalar(warmup, dtype)
        largest = _largest(state, known, scalars.scalar(threshold, dtype), is_warm)
        seen = optax.safe_increment(state.seen)
        weight = jnp.where(
            is_warm,
            1 - scalars.scalar(decay, dtype),
            1 / seen.astype(dtype),
        )
        mean, stddev = _averaged(state, jnp.minimum(known, largest), weight, is_warm)
        return clipped(updates, norm, largest), ClipByZScoreState(
            count=optax.safe_increment(state.count),
            seen=jnp.where(is_finite, seen, state.seen),
            mean=jnp.where(is_finite, mean, state.mean),
            stddev=jnp.where(is_finite, stddev, state.stddev),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _largest(
    state: ClipByZScoreState, norm: jax.Array, threshold: jax.Array, is_warm: jax.Array
) -> jax.Array:
    """The norm that gradients are clipped to, or their own."""
    z = (norm - state.mean) / (state.stddev + _EPS)
    clips = is_warm & (z > threshold) & (state.mean > 0)
    z = jnp.where(clips, z, 1)
    return jnp.where(clips, state.mean + threshold**2 * state.stddev / z, norm)


def _averaged(
    state: ClipByZScoreState, norm: jax.Array, weight: jax.Array, is_warm: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation with a norm more, of a weight.

    Welford's recursion has the distance of the norm to the old mean times that to the
    new one, and the moving average the square of the latter.
    """
    distance = norm - state.mean
    kept = 1 - weight
    new = jnp.where(is_warm, kept, jnp.sqrt(kept)) * distance
    # The root of a sum of squares, of which neither is formed: they might overflow.
    stddev = jnp.hypot(jnp.sqrt(kept) * state.stddev, jnp.sqrt(weight) * new)
    return state.mean + weight * distance, stddev
