"""Parameters that stay in bfloat16 and still learn from small updates.

Zamirai et al. 2020, "Revisiting BFloat16 training", arXiv 2010.06192.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_extras._core import checks, counters, gaussian
from optax_extras._core.inner import as_transformation
from optax_extras._core.missing import update_without_missing
from optax_extras._core.opaque import barrier
from optax_extras._core.placement import explicit_sharding
from optax_extras._core.rounding import to_bfloat16
from optax_extras.memory._rounding_words import rounding_words
from optax_extras.memory._widening import widened
from optax_extras.typing import KeyLike

_MODES = ("stochastic", "kahan")


class KeepBfloat16ParamsState(NamedTuple):
    """State of `keep_bfloat16_params`."""

    # Not `count`: `optax.tree.get` and `set` are to find the optimizer's.
    step: jax.Array  # steps so far; int32[]
    key: jax.Array  # words of the user's key, the same at every step; uint32[2]
    remainders: optax.Params  # what rounding left, bfloat16; None of others
    inner_state: optax.OptState


def keep_bfloat16_params(
    inner: optax.GradientTransformation,
    mode: str = "stochastic",
    *,
    key: KeyLike = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Trains parameters in bfloat16 without a copy of them in float32.

    Use it as the outermost transformation, around a whole optimizer. A bfloat16 number
    has 8 significant bits: rounded to the nearest, a parameter does not move by an
    update of less than 0.2 to 0.4 % of it, so that weight decay and small learning
    rates have no effect. Parameters that are bfloat16 only in the forward pass, with a
    copy in float32 for the optimizer, have no such problem and do not need this.

    With the parameter p and the update u of ``inner``, the new parameter is

    - ``"stochastic"``: p + u rounded up or down at random, so that its mean is right;
    - ``"kahan"``: p + (u + r) rounded to the nearest, where the remainder r is what
      rounding left of the last sum. It has less noise, and takes 2 bytes for each
      parameter, and 4 to 8 more during the step.

    The update is the difference of the new parameter and the old one, in bfloat16, and
    `optax.apply_updates` gives the new parameter bit for bit as long as u is smaller
    than half of p. A larger update is itself rounded to the nearest, which ``"kahan"``
    makes up for in the next step and ``"stochastic"`` does not: its mean may then be
    off by half of the last place. Whatever changes updates behind this, such as a
    further stage in a chain, undoes all of it. Derivatives of a run do not pass the
    rounding.

    Parameters and gradients are float32 to ``inner``, and so is its state, which
    `compress_state` makes smaller. Leaves of other dtypes are updated as by ``inner``
    alone, but for its arithmetic in float32.

    Args:
      inner: an optimizer.
      mode: ``"stochastic"`` or ``"kahan"``.
      key: an int, a key from `jax.random.key`, or the uint32 words of one, from which
        the bits for rounding are drawn, by the path and index of an element.
        ``update(..., key=k)`` uses ``k`` instead for that step.

    Returns:
      A gradient transformation whose ``update`` needs the parameters. Its state is that
      of ``inner``, 12 bytes, and with ``"kahan"`` the remainders.

    Raises:
      ValueError: ``mode`` is unknown; at ``update``, ``params`` are missing, or the
        gradients do not have their structure and shapes.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax.numpy as jnp, optax, optax_extras
      >>> def end(optimizer):
      ...     params = jnp.full(1000, 0.05, jnp.bfloat16)
      ...     state = optimizer.init(params)
      ...     for _ in range(100):
      ...         grads = jnp.ones_like(params)
      ...         updates, state = optimizer.update(grads, state, params)
      ...         params = optax.apply_updates(params, updates)
      ...     return round(float(jnp.mean(params.astype(jnp.float32))), 3)
      >>> end(optax.sgd(1e-4)), end(optax_extras.keep_bfloat16_params(optax.sgd(1e-4)))
      (0.05, 0.04)

    References:
      Zamirai et al. 2020, "Revisiting BFloat16 training", arXiv 2010.06192
    """
    inner = as_transformation("inner", inner)
    keeps = checks.choice("mode", mode, _MODES) == "kahan"
    words = gaussian.key_words(key)

    def init(params: optax.Params) -> KeepBfloat16ParamsState:
        checks.check_inexact("params", params)
        remainders = jax.tree.map(
            lambda p: jnp.zeros_like(p) if keeps and _is_rounded(p) else None, params
        )
        return KeepBfloat16ParamsState(
            jnp.zeros((), jnp.int32),
            jnp.array(words, jnp.uint32),
            remainders,
            inner.init(widened(params)),
        )

    def update(
        updates: optax.Updates,
        state: KeepBfloat16ParamsState,
        params: optax.Params | None = None,
        *,
        key: KeyLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, KeepBfloat16ParamsState]:
        if params is None:
            raise ValueError(
                "`params` must be given to `update` of `keep_bfloat16_params`"
            )
        checks.check_gradients(updates, params)
        sample = gaussian.step_words(state.key, key)
        if key is not None:
            extra_args["key"] = key
        step = optax.safe_increment(state.step)
        wanted, inner_state = update_without_missing(
            inner, widened(updates), state.inner_state, widened(params), **extra_args
        )
        treedef: Any
        flat, treedef = jax.tree.flatten_with_path(params)
        columns = [treedef.flatten_up_to(x) for x in (wanted, state.remainders)]
        paths = [path if _is_rounded(p) else None for path, p in flat]
        bits = {} if keeps else rounding_words(sample, step, paths, "parameters")
        updates_of, remainders = [], []
        for i, (_, p) in enumerate(flat):
            u, r = (column[i] for column in columns)
            if u is not None and paths[i] is not None:
                if keeps:
                    u, r = _kahan(p, u, r)
                else:
                    u = _stochastic(p, u, bits[i])
            elif u is not None:
                u = u.astype(jnp.result_type(p))
            updates_of.append(u)
            remainders.append(r)
        return treedef.unflatten(updates_of), KeepBfloat16ParamsState(
            step, state.key, treedef.unflatten(remainders), inner_state
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _is_rounded(leaf: Any) -> bool:
    return bool(jnp.result_type(leaf) == jnp.bfloat16)


def _stochastic(p: jax.Array, u: jax.Array, words: jax.Array) -> jax.Array:
    """The update of a parameter that is rounded at random.

    Args:
      p: bfloat16.
      u: the update before rounding, float32.
      words: those of the leaf, uint32[2].
    """
    each = counters.hashed_words(words, p.shape, explicit_sharding(p))
    wide = p.astype(jnp.float32)
    new = to_bfloat16(wide + u.astype(jnp.float32), each)
    return _difference(new.astype(jnp.float32), wide)


def _kahan(p: jax.Array, u: jax.Array, r: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The update of a parameter and what rounding leaves.

    Args:
      p: bfloat16.
      u: the update before rounding, float32.
      r: what rounding left before, bfloat16.
    """
    wide, wanted = p.astype(jnp.float32), u.astype(jnp.float32) + r.astype(jnp.float32)
    new = lax.reduce_precision(wide + wanted, 8, 7)
    # Behind a barrier, XLA reads the update, and the old remainder may be written over.
    update = barrier(_difference(new, wide))
    # The barriers keep XLA from writing the sum to memory for both uses.
    wide, wanted = barrier(p).astype(jnp.float32), u.astype(jnp.float32)
    # What `optax.apply_updates` makes of it.
    reached = lax.reduce_precision(wide + update.astype(jnp.float32), 8, 7)
    left = wanted + barrier(r).astype(jnp.float32) - (reached - wide)
    return update, left.astype(r.dtype)


def _difference(new: jax.Array, old: jax.Array) -> jax.Array:
    """What makes a parameter from another, bfloat16; of equal ones −0, not +0."""
    difference = (new - old).astype(jnp.bfloat16)
    return jnp.where(difference == 0, -jnp.zeros_like(difference), difference)
