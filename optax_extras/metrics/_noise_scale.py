"""The gradient noise scale (McCandlish et al. 2018, arXiv 1812.06162)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_extras._core import checks, dtypes, scalars
from optax_extras._core.axes import names_of, vary_over
from optax_extras._core.leaves import map_gradients
from optax_extras._core.norms import global_norm
from optax_extras.metrics._metric import Metric, Step, unmeasured
from optax_extras.typing import AxisName, Scalar


class NoiseScaleState(NamedTuple):
    """State of `noise_scale`: averages, all 0 before the first measurement."""

    weight: jax.Array  # 1 − decay^n after n measurements; float32[]
    signal: jax.Array  # average of estimates of |G|², times the weight; float32[]
    variance: jax.Array  # average of estimates of tr Σ, times the weight; float32[]


def noise_scale(
    batch_size: Scalar,
    *,
    decay: Scalar = 0.99,
    axis_name: AxisName | None = None,
) -> Metric:
    r"""The simple noise scale tr Σ / |G|², an estimate of the useful batch size.

    :math:`G` is the true gradient, and :math:`\Sigma` the covariance of the gradient
    of one example. Far below this batch size, a larger batch saves as many steps as it
    costs; far above, hardly any. Norms of gradients of a small and a large batch give

    .. math::

        |G|^2 \approx
            \frac{B_{big} |G_{big}|^2 - B_{small} |G_{small}|^2}{B_{big} - B_{small}},
        \qquad
        \operatorname{tr} \Sigma \approx
            \frac{|G_{small}|^2 - |G_{big}|^2}{1 / B_{small} - 1 / B_{big}}.

    Both are averaged over measurements before they are divided. The averages are free
    of bias; their ratio is not, and is negative or infinite while the noise outweighs
    the gradient. Average over more steps then.

    There are two sources of small batches:

    - Workers of a `jax.shard_map`, with ``axis_name``. `optax_extras.record` then takes
      the mean of the workers' gradients, and the norm of a worker's own gradient as the
      argument ``local_grad_norm`` of ``update``. The workers must hold no shards of the
      gradients along that axis.
    - The micro-batches of `optax.MultiSteps` inside `optax_extras.record`, which must
      take means, and be given the gradients as `optax_extras.record` is. The last
      micro-batch of each step is the small one. With ``every`` above 1, make it a
      multiple of the number of micro-batches: what is measured elsewhere has no effect.

    Args:
      batch_size: examples in the small batch, above 0: those of a worker, or those of a
        micro-batch.
      decay: of the averages, in [0, 1); for each measurement.
      axis_name: the axis, or the axes, of the workers.

    Returns:
      A metric named ``noise_scale``.

    Raises:
      ValueError: a number is out of its range; at ``init``, the inner state must hold
        exactly one `optax.MultiStepsState`, and does not; at ``update``, there is no
        ``local_grad_norm``.
      TypeError: an argument has the wrong type.

    References:
      McCandlish et al. 2018, "An empirical model of large-batch training", arXiv
      1812.06162
    """
    size = checks.positive("batch_size", batch_size)
    rate = checks.decay("decay", decay)

    def init(params: Any, inner_state: Any) -> tuple[jax.Array, NoiseScaleState]:
        if axis_name is None:
            _accumulation(inner_state)
        dtype = dtypes.statistic_dtype(params)
        zeros = (jnp.zeros((), dtype) for _ in NoiseScaleState._fields)
        return unmeasured(dtype), NoiseScaleState(*zeros)

    def measure(step: Step, state: NoiseScaleState) -> tuple[jax.Array, Any]:
        dtype = state.weight.dtype
        if axis_name is None:
            small, big, ratio = _of_micro_batches(step, dtype)
        else:
            small, big, ratio = _of_workers(step, axis_name, dtype)
        one, b = jnp.ones((), dtype), scalars.scalar(size, dtype)
        known = ratio > 1
        # As multiples of B_small: one batch is no source, and must not divide by 0.
        excess = jnp.where(known, ratio - one, one)
        found = NoiseScaleState(
            weight=one,
            signal=(ratio * big - small) / excess,
            variance=b * ratio * (small - big) / excess,
        )
        keep = scalars.scalar(rate, dtype)
        state = jax.tree.map(
            lambda old, new: jnp.where(known, keep * old + (one - keep) * new, old),
            state,
            found,
        )
        measured = state.weight > 0
        signal = jnp.where(measured, state.signal, one)
        value = jnp.where(measured, state.variance / signal, unmeasured(dtype))
        return value, state

    return Metric("noise_scale", init, measure)


def _of_workers(step: Step, axis_name: AxisName, dtype: Any) -> tuple[Any, Any, Any]:
    """Squared norms of a worker's and the mean gradient, and their batches' ratio."""
    own = step.extra_args.get("local_grad_norm")
    if own is None:
        raise ValueError(
            "`local_grad_norm` must be given to `update` for `noise_scale` with"
            " `axis_name`: the norm of the worker's own gradient"
        )
    square = jnp.asarray(own).astype(dtype) ** 2
    small = lax.pmean(vary_over(square, names_of(axis_name)), axis_name)
    big = global_norm(step.grads, step.own_axes).astype(dtype) ** 2
    return small, big, jnp.asarray(lax.axis_size(axis_name), dtype)


def _of_micro_batches(step: Step, dtype: Any) -> tuple[Any, Any, Any]:
    """The same of the last micro-batch and the mean; the ratio is 0 at the others."""
    old, new = _accumulation(step.old_state), _accumulation(step.state)
    count = (old.mini_step + 1).astype(dtype)

    def mean(gradient: Any, accumulated: Any) -> Any:
        dtypes_ = accumulated.dtype, jnp.asarray(gradient).dtype
        compute = dtypes.compute_dtype(*dtypes_)
        a, g = accumulated.astype(compute), jnp.asarray(gradient).astype(compute)
        return a + (g - a) / count.astype(dtypes.real_dtype(compute))

    means = map_gradients(mean, step.grads, old.acc_grads)
    small = global_norm(step.grads, step.own_axes).astype(dtype) ** 2
    big = global_norm(means, step.own_axes).astype(dtype) ** 2
    ends = new.gradient_step != old.gradient_step
    return small, big, jnp.where(ends, count, jnp.zeros((), dtype))


def _accumulation(state: Any) -> optax.MultiStepsState:
    """The only state of `optax.MultiSteps` in the inner state."""

    def is_one(node: Any) -> bool:
        return isinstance(node, optax.MultiStepsState)

    found = [x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x)]
    if len(found) != 1:
        raise ValueError(
            "`noise_scale` needs `axis_name`, or one `optax.MultiSteps` in the inner"
            f" transformation of `record`, got {len(found)} of them"
        )
    return found[0]
