"""Steps with spikes or NaN in the gradient, left out around any optimizer."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_extras._core import checks, history, leaves, norms, scalars
from optax_extras._core.axes import is_bound, names_of, vary_over, varying
from optax_extras._core.inner import as_transformation
from optax_extras.typing import AxisName, Scalar

# Of the median, the smallest scale: norms that hardly vary would give any z.
_FLOOR = 0.2
# The median absolute deviation of a Gaussian is its standard deviation over this.
_GAUSSIAN = 1.4826


class SkipSpikesState(NamedTuple):
    """State of `skip_spikes`."""

    # No count of its own: `optax.tree.get` and `set` are to find the optimizer's.
    skipped: jax.Array  # steps that were left out; int32[]
    consecutive: jax.Array  # steps left out since the last that was taken; int32[]
    spikes: jax.Array  # those of them that were finite; int32[]
    norm: jax.Array  # of the last gradient, also if it is not finite; float32[]
    z: jax.Array  # of the last step, infinite if it was not finite; float32[]
    window: jax.Array  # norms and losses of steps taken, newest last; float32[2, n]
    filled: jax.Array  # how many of each there are; int32[2]
    inner_state: optax.OptState


def skip_spikes(
    inner: optax.GradientTransformation,
    *,
    window: int = 128,
    threshold: Scalar = 6.0,
    warmup: int | jax.Array = 32,
    max_consecutive: int | jax.Array = 8,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Leaves out steps whose gradient is not finite, or is a spike.

    Use it around a whole optimizer, in runs that one bad batch must not end. A step
    that is left out changes no bit of the parameters and of the optimizer's state.
    It does not help where every step has a large gradient; there, lower the learning
    rate. As a stage inside `optax.chain` it would guard only the state of its own
    inner transformation: the stages around it would still advance, on updates of zero.

    With the norm n of all gradients together, over the ``window`` of those of the last
    steps that were taken:

    .. math::

        z = \frac{n - \mathrm{median}}{s}, \qquad
        s = \max(1.4826 \, \mathrm{MAD},\ 0.2 \, |\mathrm{median}|)

    where MAD is the median absolute deviation from the median. A step is left out if n
    is not finite, or if z > ``threshold``, which with 6 takes a norm of at least 2.2
    medians. If the loss is passed as ``update(..., value=loss)``, it is judged in the
    same way over a window of its own; a step is left out for either. Small norms and
    losses are never spikes. While there are fewer than ``warmup`` values, z is 0: then
    only steps that are not finite are left out, as what is usual is not known yet.

    After ``max_consecutive`` spikes without a step that was taken, the next one that
    is finite is taken, whatever its z, and the windows are forgotten: the level has
    changed. Steps that are not finite are never taken, and do not count for this.

    The window makes z slow to follow: where norms fall by more than the size of a spike
    within it, the spike is not seen. Take a shorter one there. The squares of elements
    above 1.8e19 overflow, and such a gradient counts as not finite.

    *Beside others*: `optax.apply_if_finite` leaves out gradients that are not finite,
    but no spikes, takes them after too many in a row, and may wait for ever at a
    collective in its inner transformation where workers differ. Both judge the
    gradients, not what the optimizer makes of them. With `optax.MultiSteps`, wrap it:
    ``skip_spikes(optax.MultiSteps(...).gradient_transformation())`` leaves out
    single mini-batches, and another takes the place of each. Inside of it, a NaN would
    stay in the accumulated gradient, and no step would be taken any more.

    Inside `jax.shard_map`, gradients that vary over an axis are taken for shards, and
    their squares are summed over it. Pass ``axis_name`` where they are instead each
    worker's own: then the largest norm and the largest loss of the workers count, and
    all workers leave out a step if one has a gradient or a loss that is not finite. The
    decision is the same everywhere, and the inner transformation runs on all workers in
    every step, so collectives in it are safe. With ``check_vma=False``, JAX does not
    tell what varies: name all axes of the mesh.

    *Differences from the sources*: the rules of OLMo-core, MaxText and Levanter take
    the mean and the standard deviation of the last losses and norms, those of bad steps
    too. In MaxText, one NaN makes the steps of a whole window be left out; in Levanter,
    it is multiplied by 0 and added. A spike hides the next.

    Args:
      inner: the optimizer.
      window: number of steps whose norms and losses are kept, 8 bytes each.
      threshold: above 0; a number or a 0-d array.
      warmup: values in the window from which z is judged, at most ``window``.
      max_consecutive: spikes in a row that are left out.
      axis_name: axes of `jax.shard_map` over which gradients, and the loss, are those
        of each worker alone.

    Returns:
      A gradient transformation, with everything that ``inner`` returns. Extra
      arguments, and ``value`` too, are passed on to ``inner``. A step that is left out
      has updates of −0. The state has counts of the steps left out, and the last norm
      and z, for logs.

    Raises:
      ValueError: a number is out of its range; at ``update``, ``value`` is not a
        scalar, or ``axis_name`` is not an axis of a surrounding `jax.shard_map`.
      TypeError: an argument has the wrong type, or a gradient is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax_extras.skip_spikes(optax.adam(0.1), warmup=10)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for step in range(100):
      ...     value, grads = jax.value_and_grad(loss)(params)
      ...     if step in (50, 60):
      ...         grads = grads * (jnp.nan if step == 50 else 1e6)
      ...     updates, state = optimizer.update(grads, state, params, value=value)
      ...     params = optax.apply_updates(params, updates)
      >>> int(state.skipped)
      2
      >>> bool(loss(params) < 0.01)
      True

    References:
      OLMo-core 2024, "Add Lion optimizer and a skip step version of it", pull request
      43 of allenai/OLMo-core

      Levanter 2025, "Preserve inner optimizer state on skip", pull request 973 of
      marin-community/levanter

      MaxText 2026, "Support option to skip the optimizer for training step", pull
      request 3490 of AI-Hypercomputer/maxtext
    """
    inner = as_transformation("inner", inner)
    size = history.length("window", window)
    threshold = checks.positive("threshold", threshold)
    warmup = checks.steps("warmup", warmup)
    max_consecutive = checks.steps("max_consecutive", max_consecutive)
    if isinstance(warmup, int) and warmup > size:
        raise ValueError(f"`warmup` must be <= `window`, {size}, got {warmup}")

    def init(params: optax.Params) -> SkipSpikesState:
        def zero(dtype: Any) -> jax.Array:
            return jnp.zeros((), dtype)

        return SkipSpikesState(
            skipped=zero(jnp.int32),
            consecutive=zero(jnp.int32),
            spikes=zero(jnp.int32),
            norm=zero(jnp.float32),
            z=zero(jnp.float32),
            window=jnp.zeros((2, size), jnp.float32),
            filled=jnp.zeros(2, jnp.int32),
            inner_state=inner.init(params),
        )

    def update(
        updates: optax.Updates,
        state: SkipSpikesState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SkipSpikesState]:
        checks.check_updates(updates, params)
        statistics, finite = _agreed(updates, value, axis_name)
        is_given = jnp.array([True, value is not None])
        enough = scalars.scalar(warmup, jnp.float32)
        scores = jax.vmap(_z, in_axes=(0, 0, 0, None))(
            statistics, state.window, state.filled, enough
        )
        z = jnp.max(jnp.where(is_given, scores, -jnp.inf))
        is_spike = z > scalars.scalar(threshold, jnp.float32)
        limit = scalars.scalar(max_consecutive, jnp.float32)
        relearns = finite & is_spike & (state.spikes.astype(jnp.float32) >= limit)
        taken = finite & (~is_spike | relearns)

        if value is not None:
            extra_args["value"] = value
        inner_updates, inner_state = inner.update(
            updates, state.inner_state, params, **extra_args
        )
        filled = jnp.where(relearns, 0, state.filled)
        is_new = taken & is_given
        windows = jax.vmap(history.append)(state.window, statistics)

        def counted(flag: jax.Array, number: jax.Array) -> jax.Array:
            return jnp.where(flag, optax.safe_increment(number), number)

        return (
            leaves.chosen(taken, inner_updates, leaves.no_update(inner_updates)),
            SkipSpikesState(
                skipped=counted(~taken, state.skipped),
                consecutive=jnp.where(
                    taken, 0, optax.safe_increment(state.consecutive)
                ),
                spikes=jnp.where(taken, 0, counted(finite, state.spikes)),
                norm=statistics[0],
                z=jnp.where(finite, z, jnp.inf),
                window=jnp.where(is_new[:, None], windows, state.window),
                filled=jnp.where(is_new, jnp.minimum(filled + 1, size), filled),
                inner_state=leaves.chosen(taken, inner_state, state.inner_state),
            ),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _agreed(
    updates: optax.Updates, value: Any, axis_name: AxisName | None
) -> tuple[jax.Array, jax.Array]:
    """Norm and loss, float32[2], and whether both are finite: the same everywhere.

    On several workers they are the largest, and NaN if one worker's is.
    """
    own = names_of(axis_name)
    for name in own:
        if not is_bound(name):
            raise ValueError(
                "`axis_name` must be axes of a surrounding `jax.shard_map`, got"
                f" {axis_name!r}"
            )
    norm = scalars.scalar(norms.global_norm(updates, per=own), jnp.float32)
    loss = scalars.scalar(0.0 if value is None else value, jnp.float32)
    if loss.ndim:
        raise ValueError(
            f"`value` must be a scalar, got an array of shape {loss.shape}"
        )
    names = tuple(dict.fromkeys((*own, *sorted(varying(loss), key=str))))
    if names:
        norm, loss = (_largest(x, names) for x in (norm, loss))
    statistics = jnp.stack([norm, loss])
    return statistics, jnp.all(jnp.isfinite(statistics))


def _largest(x: jax.Array, names: tuple[Any, ...]) -> jax.Array:
    """The largest over axes, or NaN if one is; some backends drop NaN in a maximum."""
    is_nan = jnp.isnan(x)
    both = jnp.stack([jnp.where(is_nan, 0.0, x), is_nan.astype(x.dtype)])
    largest, any_nan = lax.pmax(vary_over(both, names), names)
    return jnp.where(any_nan > 0, jnp.nan, largest)


def _z(
    x: jax.Array, window: jax.Array, filled: jax.Array, warmup: jax.Array
) -> jax.Array:
    """The robust z-score of a number, 0 while a window has fewer than some values."""
    values = history.ordered(window, filled)
    median = history.median(values, filled)
    deviations = jnp.sort(jnp.abs(values - median))
    spread = _GAUSSIAN * history.median(deviations, filled)
    scale = jnp.maximum(spread, _FLOOR * jnp.abs(median))
    is_known = (filled.astype(jnp.float32) >= warmup) & (scale > 0)
    return jnp.where(is_known, (x - median) / jnp.where(is_known, scale, 1), 0)
