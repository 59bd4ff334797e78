"""Matrices that keep their norm, around any optimizer (Wen et al. 2026)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, norms, scalars
from optax_extras._core.axes import may_vary, varying
from optax_extras._core.inner import as_transformation
from optax_extras._core.missing import update_without_missing
from optax_extras._core.opaque import barrier
from optax_extras.typing import ScalarOrSchedule


class HyperballState(NamedTuple):
    """State of `hyperball`."""

    # In a state of its own: where one has a count, `optax.tree.set` passes others over.
    schedule: optax.ScaleByScheduleState  # updates so far, as its count; int32[]
    norms: optax.Params  # of each leaf at `init`; float32[] or float64[]
    inner_state: optax.OptState


def hyperball(
    inner: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule | None = None,
    *,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps each matrix at the norm that it had at first, around any optimizer.

    Use it in place of weight decay for networks whose matrices are followed by a
    normalisation, so that their norm does not matter but decides how far a step turns
    them. The source reports it for language models, where rates found on small models
    then held for large ones. It does not help where the norm of a matrix is something
    to be learned, as without normalisation, or in an embedding or a last layer without
    a scale; leave those out by ``mask``. Initialise with care: the norm stays.

    With a matrix :math:`\theta`, its Frobenius norm R at ``init``, the update u that
    leaves ``inner``, and :math:`\eta_t` = ``learning_rate``:

    .. math::

        \theta_{t+1} = R \frac{\theta_t + \tilde u_t}{\|\theta_t + \tilde u_t\|},
        \qquad \tilde u_t = \eta_t R \frac{u_t}{\|u_t\|}

    so that a step turns a matrix by about :math:`\eta_t` radians. Without a
    ``learning_rate``, :math:`\tilde u_t = u_t`: the step is that of ``inner``, and is
    only projected. All other leaves have the updates of ``inner``, with its own
    learning rate: ``hyperball(optax.adam(6e-4), 0.02)`` is the source's AdamH.

    Leaves of two and more dimensions are matrices, each of one norm. Where layers or
    experts are stacked in one leaf, put `stacked` around it. A matrix that is all zero
    at ``init`` has no norm to keep, and is trained by ``inner`` alone.

    *Differences from the source*: the norm is that at ``init``, as in the paper, and
    computed in float32. The authors' code takes that of the present parameters in their
    own dtype, by which a bfloat16 matrix of 64×64 loses 1.5 % of its norm, and divides
    zero by zero for a matrix of zeros. It stacks along the first axis of every leaf of
    three and more dimensions.

    Args:
      inner: any optimizer, whose updates are to be added to the parameters.
      learning_rate: :math:`\eta`, at least 0; a number, a 0-d array or a schedule; or
        None for the step of ``inner``.
      mask: which leaves keep their norm: a tree of booleans or a function of the
        parameters, as for `optax.masked`. None means those of two and more dimensions.

    Returns:
      A gradient transformation, which needs ``params``. Its state is that of ``inner``,
      4 bytes, and 4 for each leaf; a step takes temporary memory for the updates.
      Inside `jax.shard_map`, a leaf that varies over an axis is in shards along it.
      With ``check_vma=False``, which leaves do is not known, and an error.

    Raises:
      ValueError: ``learning_rate`` is out of its range; at ``update``, ``params`` is
        not given, the gradients do not have the structure and shapes of the
        parameters, or it is inside `jax.shard_map` with ``check_vma=False``.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params / jnp.linalg.norm(params) - jnp.eye(2)) ** 2)
      >>> params = jnp.array([[1.0, 2.0], [0.0, 2.0]])
      >>> optimizer = optax_extras.hyperball(optax.adam(1.0), 0.05)
      >>> state = optimizer.init(params)
      >>> for _ in range(60):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> print(jnp.linalg.norm(params).round(4))
      3.0
      >>> bool(loss(params) < 0.2)
      True

    References:
      Wen et al. 2026, "Fantastic Pretraining Optimizers and Where to Find Them II:
      Hyperball Optimization", arXiv 2606.16899
    """
    inner = as_transformation("inner", inner)
    if learning_rate is not None:
        rate = checks.nonnegative("learning_rate", learning_rate, schedule=True)

    def init(params: optax.Params) -> HyperballState:
        checks.check_inexact("params", params)
        return HyperballState(
            schedule=optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)),
            norms=jax.tree.map(norms.global_norm, params),
            inner_state=inner.init(params),
        )

    def update(
        updates: optax.Updates,
        state: HyperballState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, HyperballState]:
        if params is None:
            raise ValueError("`params` must be given to `update` of `hyperball`")
        checks.check_gradients(updates, params)
        if may_vary(state.schedule.count) != varying(state.schedule.count):
            raise ValueError(
                "`hyperball` must be told by `jax.shard_map` what is in shards, got"
                " `check_vma=False`"
            )
        count = state.schedule.count
        moved, inner_state = update_without_missing(
            inner, updates, state.inner_state, params, **extra_args
        )

        def leaf(_: Any, u: Any, p: Any, norm: jax.Array, is_matrix: bool) -> Any:
            if not is_matrix:
                return u
            if learning_rate is None:
                return _projected(u, p, norm, None)
            return _projected(u, p, norm, scalars.evaluate(rate, count, norm.dtype))

        kept = leaves.map_gradients(
            leaf, updates, moved, params, state.norms, _matrices(mask, params)
        )
        schedule = optax.ScaleByScheduleState(optax.safe_increment(count))
        return kept, HyperballState(schedule, state.norms, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _matrices(mask: Any, params: optax.Params) -> Any:
    """Whether each leaf is to keep its norm."""
    if mask is None:
        return jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)
    chosen = mask(params) if callable(mask) else mask
    return jax.tree.map(
        lambda flag, part: jax.tree.map(lambda _: checks.flag("mask", flag), part),
        chosen,
        params,
    )


def _projected(
    update: Any, param: Any, norm: jax.Array, rate: jax.Array | None
) -> jax.Array:
    """The update that leads to the norm; of the length rate·norm before, if given."""
    dtype = jnp.result_type(update)
    compute = dtypes.compute_dtype(dtype, jnp.result_type(param), norm.dtype)
    own = varying(norm)  # workers that train apart have norms of their own
    norm = norm.astype(dtypes.real_dtype(compute))
    u, p = barrier(jnp.asarray(update)), jnp.asarray(param)  # once, whatever it costs

    # Each norm reads arrays behind a barrier of its own: XLA would write what it shares
    # with another kernel, converted to float32.
    step = jnp.ones_like(norm)
    if rate is not None:
        length = norms.global_norm(barrier(u).astype(compute), own)
        step = _ratio(rate.astype(norm.dtype) * norm, length)
    again = barrier((p, u, step))
    moved = norms.global_norm(_moved(again, compute), own)
    scale = _ratio(norm, moved)

    def difference(p: jax.Array, u: jax.Array) -> jax.Array:
        # From p + u it would cancel.
        projected = (scale - 1) * p + scale * step * u
        return jnp.where(norm > 0, projected, u)

    found: jax.Array = leaves.by_part(difference, p.astype(compute), u.astype(compute))
    return found.astype(dtype)


def _moved(arguments: tuple[jax.Array, ...], dtype: Any) -> Any:
    """A parameter plus its update times a step, computed in a dtype."""
    param, update, step = arguments
    return leaves.by_part(
        lambda p, u: p + step * u, param.astype(dtype), update.astype(dtype)
    )


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    return x / jnp.where(y > 0, y, 1)
