"""Deep Gradient Compression (Lin et al. 2017, 1712.01887)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, scalars, stages
from optax_extras._core.axes import names_of
from optax_extras._core.leaves import is_none
from optax_extras._core.norms import global_norm
from optax_extras._core.placement import PerWorker
from optax_extras.communication._averager import Averager, as_real, like
from optax_extras.communication._guards import check_same
from optax_extras.communication._workers import own, per_worker_zeros, with_own
from optax_extras.compressors import top_k
from optax_extras.typing import AxisName, Scalar, ScalarOrSchedule

# Densities of the warm-up, in as many equal parts of its steps.
WARM_UP = (0.25, 0.0625, 0.015625, 0.004, 0.001)


class DeepGradientCompressionState(NamedTuple):
    """State of the first stage of `deep_gradient_compression`."""

    count: jax.Array  # type: ignore[assignment]  # steps so far; int32[]
    skipped: jax.Array  # steps whose gradients were not all finite; int32[]
    velocity: PerWorker  # u of compressed leaves; float32, (workers, *shape)
    residual: PerWorker  # v, the velocities not yet sent; float32, (workers, *shape)
    trace: Any  # momentum of the dense leaves; float32, the parameters' shapes


def deep_gradient_compression(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    density: float = 0.001,
    *,
    axis_name: AxisName,
    workers: int,
    nesterov: bool = False,
    masking: bool = True,
    clip: Scalar | None = None,
    warmup_steps: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with momentum that sends a thousandth of its velocities.

    Use it for data-parallel training over slow links. With few workers or fast links, a
    dense mean may take less time. `compressed_mean` composes with any optimizer, but
    momentum after a sparse mean acts on elements long after their gradients; here each
    worker has its own velocity, and sends what it has accumulated.

    With the gradient g of worker i, momentum m, N workers and the :math:`\lceil dn
    \rceil` largest elements S of each leaf:

    .. math::

        u \leftarrow m u + g, \qquad v \leftarrow v + u, \qquad
        \theta \leftarrow \theta - \frac{\eta}{N} \sum_i v_i[S_i], \qquad
        v[S] \leftarrow 0, \quad u[S] \leftarrow 0

    and with ``nesterov``, :math:`u \leftarrow m (u + g)` and :math:`v \leftarrow v + u
    + g`. Leaves of fewer than 1024 elements are averaged densely, and have an ordinary
    momentum. A density of 1 without ``masking`` is SGD with momentum, and with it plain
    SGD.

    Call ``init`` outside of `jax.shard_map`, and ``update`` inside, on local gradients,
    as for `compressed_mean`; what is said there of specs, of gradients that are not
    finite, and of ``weight`` holds here too.

    *Differences from the source*: the reference selects by a sampled threshold and cuts
    a surplus by index, not by magnitude; here the selection is exact. Values travel as
    bfloat16, and what that rounds away stays in v. The reference also clips, in its
    examples, by the norm of each leaf.

    Args:
      learning_rate: η, at least 0; a number, a 0-d array or a schedule.
      momentum: m in [0, 1); a number, a 0-d array or a schedule.
      density: d in (0, 1], the share of elements that each worker sends.
      axis_name: the axis of the workers, or a tuple of axes.
      workers: N, the size of that axis.
      nesterov: whether to use Nesterov's form.
      masking: whether the velocity of what was sent starts anew.
      clip: norm to which the gradients are clipped; those of one worker to this over
        :math:`\sqrt N`.
      warmup_steps: steps during which the density falls, in equal parts: 25, 6.25,
        1.5625, 0.4 and 0.1 %, as far as these are above ``density``.

    Returns:
      A gradient transformation that contains the learning rate. Its state is two
      float32 copies of the compressed leaves on each worker, and one of the others.

    Raises:
      ValueError: an argument is out of its range; at ``init`` and ``update``, as for
        `compressed_mean`.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from jax.sharding import PartitionSpec as P
      >>> workers = jax.device_count()
      >>> mesh = jax.make_mesh((workers,), ("data",))
      >>> tx = optax_extras.deep_gradient_compression(
      ...     0.05, density=0.1, axis_name="data", workers=workers
      ... )
      >>> def loss(params, x):
      ...     return jnp.mean((params - x) ** 2) * params.size / 2
      >>> def step(params, state, x):
      ...     value, grads = optax_extras.local_value_and_grad(loss, "data")(params, x)
      ...     updates, state = tx.update(grads, state, params)
      ...     return optax.apply_updates(params, updates), state
      >>> params = jnp.zeros(2000)
      >>> with jax.set_mesh(mesh):
      ...     state = tx.init(params)
      ...     specs = optax_extras.worker_specs(state, "data")
      ...     step = jax.jit(
      ...         jax.shard_map(
      ...             step, in_specs=(P(), specs, P()), out_specs=(P(), specs)
      ...         )
      ...     )
      ...     for _ in range(150):
      ...         params, state = step(params, state, jnp.ones(2000))
      >>> bool(jnp.abs(params - 1).max() < 0.1)
      True

    References:
      Lin et al. 2017, "Deep Gradient Compression: Reducing the Communication Bandwidth
      for Distributed Training", arXiv 1712.01887
    """
    return optax.chain(
        _accumulate(
            checks.decay("momentum", momentum, schedule=True),
            Averager.make(_staged(density, warmup_steps), axis_name, workers),
            nesterov=checks.flag("nesterov", nesterov),
            masking=checks.flag("masking", masking),
            clip=None if clip is None else checks.positive("clip", clip),
        ),
        stages.scale_by_learning_rate(learning_rate),
    )


def _staged(density: float, warmup_steps: Any) -> Any:
    """Selection with a density that falls during the warm-up."""
    warmup_steps = checks.nonnegative_integer("warmup_steps", warmup_steps)
    last = top_k(density)
    above = [d for d in WARM_UP if d > density]
    if not (above and warmup_steps):
        return last
    # With fewer steps than densities, the later of two at one step counts.
    starts = {i * warmup_steps // len(above): d for i, d in enumerate(above)}
    return top_k({**starts, warmup_steps: density})


def _accumulate(
    momentum: ScalarOrSchedule,
    averager: Averager,
    *,
    nesterov: bool,
    masking: bool,
    clip: Scalar | None,
) -> optax.GradientTransformationExtraArgs:
    """Sends accumulated velocities; callers check the arguments."""
    axis_name, workers = averager.group.axis_name, averager.group.workers

    def init(params: optax.Params) -> DeepGradientCompressionState:
        checks.check_inexact("params", params)
        large = averager.large(params)
        small = jax.tree.map(
            lambda p, kept: (
                jnp.zeros_like(as_real(p)) if kept is None and p is not None else None
            ),
            params,
            large,
            is_leaf=is_none,
        )
        return DeepGradientCompressionState(
            count=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            velocity=per_worker_zeros(large, axis_name, workers),
            residual=per_worker_zeros(large, axis_name, workers),
            trace=small,
        )

    def accumulated(m: jax.Array, u: jax.Array, g: jax.Array) -> tuple[Any, Any]:
        """The new velocity, and what a step descends along."""
        if not nesterov:
            return m * u + g, m * u + g
        return m * (u + g), m * (u + g) + g

    def update(
        updates: optax.Updates,
        state: DeepGradientCompressionState,
        params: optax.Params | None = None,
        *,
        weight: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, DeepGradientCompressionState]:
        del extra_args
        check_same(params, axis_name)
        local = averager.local(updates, weight)
        grads = local.leaves
        if clip is not None:
            limit = jnp.asarray(clip, jnp.float32) / workers**0.5
            if local.weight is not None:
                limit = limit * local.weight
            grads = _clipped(grads, limit, axis_name)
        treedef: Any = jax.tree.structure(updates, is_leaf=is_none)
        u, v = own(state.velocity, updates), own(state.residual, updates)
        trace = treedef.flatten_up_to(state.trace)
        m = scalars.evaluate(momentum, state.count, jnp.float32)
        known = [i for i, g in enumerate(grads) if g is not None]
        sums, velocities = {i: grads[i][jnp.newaxis] for i in known}, {}
        for i in known:
            if u[i] is not None:
                velocities[i], direction = accumulated(m, u[i], sums[i])
                sums[i] = v[i] + direction
        found = averager.mean(
            [local.keys[i] for i in known],
            [local.takes_part(x, 0) for x in sums.values()],
            (),
            state.count,
            local.weight,
        )

        def if_finite(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(found.finite, new, old)

        flat: list[Any] = jax.tree.leaves(updates, is_leaf=is_none)
        for i, mean, left in zip(known, found.means, found.left, strict=True):
            if u[i] is None:
                after, mean = accumulated(m, trace[i], mean)
                trace[i] = if_finite(after, trace[i])
            else:
                kept = velocities[i]
                if masking:
                    kept = jnp.where(left == sums[i], kept, 0)
                u[i] = if_finite(local.takes_part(kept, u[i]), u[i])
                v[i] = if_finite(local.takes_part(left, v[i]), v[i])
            flat[i] = like(if_finite(mean, jnp.zeros_like(mean)), flat[i])
        return treedef.unflatten(flat), DeepGradientCompressionState(
            count=optax.safe_increment(state.count),
            skipped=state.skipped + jnp.where(found.finite, 0, 1),
            velocity=with_own(state.velocity, u, updates),
            residual=with_own(state.residual, v, updates),
            trace=treedef.unflatten(trace),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _clipped(grads: list[Any], limit: jax.Array, axis_name: AxisName) -> list[Any]:
    """The gradients of one worker, with a norm of at most the limit."""
    known = [g for g in grads if g is not None]
    if not known:
        return grads
    norm = global_norm(known, names_of(axis_name))
    scale = jnp.where(norm > limit, limit / norm, 1)
    return [None if g is None else g * scale for g in grads]
