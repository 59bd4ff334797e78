"""Compressed means with error feedback (Karimireddy et al. 2019, 1901.09847)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, scalars
from optax_extras._core.leaves import chosen, is_none
from optax_extras._core.placement import PerWorker
from optax_extras.communication._averager import MIN_SIZE, Averager, like
from optax_extras.communication._guards import check_same
from optax_extras.communication._workers import own, per_worker_zeros, with_own
from optax_extras.compressors import Compressor
from optax_extras.typing import AxisName, Scalar


class CompressedMeanState(NamedTuple):
    """State of `compressed_mean`."""

    count: jax.Array  # type: ignore[assignment]  # steps so far; int32[]
    skipped: jax.Array  # steps whose gradients were not all finite; int32[]
    residual: PerWorker  # what was not sent; float32, (workers, *shape) of a leaf
    compressor: Any  # the compressor's own state


def compressed_mean(
    compressor: Compressor,
    axis_name: AxisName,
    *,
    workers: int,
    feedback: bool = True,
    decay: Scalar = 1.0,
    average: Literal["all", "senders"] = "all",
    min_size: int = MIN_SIZE,
    fast_axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Averages gradients over workers in compressed form, with error feedback.

    Use it as the first stage of a chain in data-parallel training over slow links: the
    local gradients of each worker go in, and the mean of what was sent comes out, the
    same bits on every worker. On fast links a dense mean takes less time. A stage
    before it must keep no state of gradients, which would differ between workers; for
    larger batches, take the mean of several losses rather than `optax.MultiSteps`
    around it.

    Each worker keeps what it did not send, e, and adds it to its next gradient. With
    gradients g, ``decay`` β, compressor C and N workers:

    .. math::

        p = \beta e + g, \qquad e' = p - C(p), \qquad u = \frac{1}{N} \sum_i C(p_i)

    With β = 1, nothing is lost: the sum of all u is that of the mean gradients, less
    the mean of what the workers still keep. With a smaller one, what waits fades.

    Call ``init`` outside of `jax.shard_map`, and ``update`` inside, on gradients that
    differ between workers (`local_value_and_grad`) and on parameters that do not.
    `worker_specs` gives the specs of the state.

    Workers may be unequal: ``update(..., weight=w)`` gives the weight of this worker,
    such as the number of its examples. Gradients are multiplied by it, and their sums
    divided by the sum of the weights; residuals are in units of the weighted gradient.
    A worker of weight 0 sends nothing and keeps its residual, and its gradients may be
    anything. A step in which no worker has a weight, or one has a weight that is below
    0 or not finite, is skipped. Messages are 4 bytes longer.

    A step with a gradient that is not finite, on any worker, gives updates of zero and
    leaves the residuals and the compressor alone. So does a step with one so large that
    the compressor's sums or norms could overflow. Later stages of a chain see the
    zeros.

    Args:
      compressor: one of `optax_extras.compressors`, or your own `Compressor`.
      axis_name: the axis of the workers, or a tuple of axes.
      workers: N, the size of that axis.
      feedback: whether to keep what was not sent. Without it, only unbiased compressors
        converge (``quantized(..., stochastic=True)``).
      decay: β in [0, 1]; a number or a 0-d array. A leaf without a gradient and a step
        that is skipped leave the residual as it is. Without ``feedback``, it must be 1.
      average: ``"all"``, over all workers; or ``"senders"``, for each element over the
        workers that sent it, which is larger where few did, and conserves nothing.
        Dense compressors send all.
      min_size: leaves of fewer elements, and those that the compressor cannot shorten,
        are averaged densely in float32, in one collective.
      fast_axis_name: axes of workers with fast links between them. Their dense mean is
        taken first, and they share a residual.

    Returns:
      A gradient transformation. Its state is a float32 copy of the compressed leaves on
      each worker, without ``feedback`` none, beside what the compressor keeps. Updates
      have the dtypes of the gradients.

    Raises:
      ValueError: an argument is out of its range; at ``init``, it was called inside of
        `jax.shard_map`; at ``update``, the axis is not bound or has another size, the
        gradients were reduced already, the parameters differ between workers, or the
        state was not given in parts. With ``check_vma=False``, JAX does not tell what
        differs between workers, and neither is seen.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from jax.sharding import PartitionSpec as P
      >>> from optax_extras.compressors import top_k
      >>> workers = jax.device_count()
      >>> mesh = jax.make_mesh((workers,), ("data",))
      >>> tx = optax.chain(
      ...     optax_extras.compressed_mean(top_k(0.1), "data", workers=workers),
      ...     optax.sgd(0.05),
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
      ...     for _ in range(100):
      ...         params, state = step(params, state, jnp.ones(2000))
      >>> bool(jnp.abs(params - 1).max() < 0.1)
      True

    References:
      Karimireddy et al. 2019, "Error Feedback Fixes SignSGD and other Gradient
      Compression Schemes", arXiv 1901.09847
    """
    averager = Averager.make(
        compressor, axis_name, workers, average, min_size, fast_axis_name
    )
    feedback = checks.flag("feedback", feedback)
    decay = checks.decay("decay", decay, or_one=True)
    if isinstance(decay, float) and decay != 1 and not feedback:
        raise ValueError(
            "`decay` must be 1 without `feedback`, as nothing is kept that could"
            f" fade, got {decay}"
        )

    def faded(kept: Any) -> Any:
        if kept is None or (isinstance(decay, float) and decay == 1):
            return kept
        return scalars.scalar(decay, jnp.float32) * kept

    def init(params: optax.Params) -> CompressedMeanState:
        checks.check_inexact("params", params)
        large = averager.large(params)
        kept = large if feedback else jax.tree.map(lambda _: None, large)
        return CompressedMeanState(
            count=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            residual=per_worker_zeros(kept, axis_name, workers),
            compressor=averager.init(large),
        )

    def update(
        updates: optax.Updates,
        state: CompressedMeanState,
        params: optax.Params | None = None,
        *,
        weight: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CompressedMeanState]:
        del extra_args
        check_same(params, axis_name)
        local = averager.local(updates, weight)
        grads, kept = local.leaves, own(state.residual, updates)
        # A leaf without a gradient sends zeros, so that the compressor gets all leaves.
        known = [i for i, g in enumerate(grads) if g is not None or kept[i] is not None]
        sums = [local.takes_part(_total(grads[i], faded(kept[i])), 0) for i in known]
        found = averager.mean(
            [local.keys[i] for i in known],
            sums,
            state.compressor,
            state.count,
            local.weight,
        )

        def if_finite(new: Any, old: Any) -> Any:
            return chosen(found.finite, new, old)

        flat: list[Any] = jax.tree.leaves(updates, is_leaf=is_none)
        for i, mean, left in zip(known, found.means, found.left, strict=True):
            if grads[i] is None:
                continue
            flat[i] = like(if_finite(mean, jnp.zeros_like(mean)), flat[i])
            if kept[i] is not None:
                kept[i] = if_finite(local.takes_part(left, kept[i]), kept[i])
        treedef: Any = jax.tree.structure(updates, is_leaf=is_none)
        new_state = CompressedMeanState(
            count=optax.safe_increment(state.count),
            skipped=state.skipped + jnp.where(found.finite, 0, 1),
            residual=with_own(state.residual, kept, updates),
            compressor=if_finite(found.state, state.compressor),
        )
        return treedef.unflatten(flat), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _total(grad: Any, kept: Any) -> Any:
    """What a leaf is going to send, (1, *shape); one of the two may be None."""
    if grad is None:
        return jnp.zeros_like(kept)
    return grad[jnp.newaxis] if kept is None else kept + grad[jnp.newaxis]
