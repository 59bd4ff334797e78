"""Adai: a momentum of its own for each element (Xie et al. 2020)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars, stages
from optax_extras._core.opaque import barrier
from optax_extras.typing import DTypeLike, Scalar, ScalarOrSchedule


class ScaleByAdaiState(NamedTuple):
    """State of `scale_by_adai`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    mu: optax.Updates  # first moment; the parameters' shapes
    nu: optax.Updates  # second moment; their shapes, real, float32 or wider
    mu_weight: optax.Updates  # 1 − ∏ β1; as nu
    nu_mean: optax.Updates  # the mean of nu in each leaf; float32[] or float64[]


class _Scalars(NamedTuple):
    """Scalars of one step of one leaf."""

    b0: Any
    b2: Any
    eps: Any
    mean: Any  # of the second moment over all parameters


def scale_by_adai(
    b0: Scalar = 0.1,
    b2: ScalarOrSchedule = 0.99,
    eps: Scalar = 1e-3,
    *,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Averages gradients, over more steps where they are small beside others.

    Use it where SGD with momentum is the method of choice, as for convolutional
    networks: as in SGD, the step grows with the gradient, and by the source's theory it
    selects flat minima as SGD does, but elements with small gradients have up to 1000
    steps of momentum to leave a saddle. Take the learning rate of plain SGD, which is
    ten times that of SGD with a momentum of 0.9. The source's authors found it worse
    than Adam on transformers. It stores three copies of the parameters, as AdaSmooth.

    With :math:`\beta_0` = ``b0``, :math:`\beta_2` = ``b2``, :math:`\epsilon` = ``eps``
    and t = 1 at the first update, for each element:

    .. math::

        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad
        \bar v_t = \operatorname{mean}(v_t) \text{ over all parameters} \\
        \beta_{1,t} &= 1 - \operatorname{clip}
            \left(\beta_0 \frac{v_t}{\bar v_t},\ \epsilon,\ 1\right) \\
        m_t &= \beta_{1,t} m_{t-1} + (1 - \beta_{1,t}) g_t, \qquad
        u_t = \frac{m_t}{1 - \prod_i \beta_{1,i}}

    The debiasing of :math:`v` and :math:`\bar v` is one and the same, and cancels.
    ``b0=0`` is an average with the decay :math:`1 - \epsilon` for all elements,
    ``eps=1`` is SGD, and where all gradients are of one size, all have the decay
    :math:`1 - \beta_0`.

    *Differences from the source*: none in the equations. The state holds 1 − ∏ β1 in
    place of the product, which cancels in float32 for β1 near 1. While all gradients
    are zero, or their squares underflow, where the source divides zero by zero, β1 is
    :math:`1 - \epsilon`. The mean is over the leaves that have a gradient, as in the
    authors' code; of each leaf it is kept in the state, so that a step reads no second
    moment twice. Inside `jax.shard_map`, it covers only the shard's part of the
    parameters.

    Args:
      b0: :math:`\beta_0`, at least 0.
      b2: second-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      eps: :math:`\epsilon` in (0, 1]; :math:`1 - \epsilon` is the largest decay.
      mu_dtype: real dtype of the first moment; by default each parameter's. The second
        moment and the weight are in float32 or wider. In half precision, updates come
        from the first moment as it is stored.

    Returns:
      A gradient transformation. Its state is three copies of the parameters, 4 bytes,
      and 4 for each leaf.

    Raises:
      ValueError: a number is out of its range; at ``update``, the gradients do not have
        the structure and shapes of the parameters.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum(jnp.array([1.0, 0.1]) * (params - 1) ** 2)
      >>> optimizer = optax.chain(
      ...     optax_extras.scale_by_adai(), optax.scale_by_learning_rate(0.3)
      ... )
      >>> params = jnp.zeros(2)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.02)
      True

    References:
      Xie et al. 2020, "Adaptive Inertia: Disentangling the Effects of Adaptive Learning
      Rate and Momentum", arXiv 2006.15815
    """
    b0 = checks.nonnegative("b0", b0)
    b2 = checks.decay("b2", b2, schedule=True)
    eps = checks.number("eps", eps, "in (0, 1]", lambda x: 0 < x <= 1)
    mu_dtype = checks.floating_dtype("mu_dtype", mu_dtype)

    def init(params: optax.Params) -> ScaleByAdaiState:
        checks.check_inexact("params", params)
        return ScaleByAdaiState(
            count=jnp.zeros((), jnp.int32),
            mu=leaves.zeros_like(params, mu_dtype),
            nu=leaves.real_zeros_like(params),
            mu_weight=leaves.real_zeros_like(params),
            nu_mean=jax.tree.map(jnp.sum, leaves.real_zeros_like(params)),
        )

    def update(
        updates: optax.Updates,
        state: ScaleByAdaiState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByAdaiState]:
        del params, extra_args
        checks.check_gradients(updates, state.mu)
        dtype = dtypes.statistic_dtype(state.nu_mean)
        nu_decay = scalars.evaluate(b2, state.count, dtype)

        def leaf_mean(g: Any, mean: jax.Array) -> tuple[Any, jax.Array]:
            decay = nu_decay.astype(mean.dtype)
            return g, decay * mean + (1 - decay) * _mean_square(g, mean.dtype)

        _, nu_mean = leaves.map_with_buffers(leaf_mean, updates, [state.nu_mean])
        by = _Scalars(b0, nu_decay, eps, _mean(updates, nu_mean, dtype))
        updates, mu, nu, mu_weight = leaves.map_with_buffers(
            lambda g, mu, nu, weight: _step_leaf(g, mu, nu, weight, by),
            updates,
            (state.mu, state.nu, state.mu_weight),
        )
        count = optax.safe_increment(state.count)
        return updates, ScaleByAdaiState(count, mu, nu, mu_weight, nu_mean)

    return optax.GradientTransformationExtraArgs(init, update)


def adai(
    learning_rate: ScalarOrSchedule,
    b0: Scalar = 0.1,
    b2: ScalarOrSchedule = 0.99,
    eps: Scalar = 1e-3,
    *,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adai: SGD with a momentum of its own for each element.

    A chain of `scale_by_adai`, decoupled weight decay and the learning rate:
    :math:`\theta_{t+1} = \theta_t - \alpha (u_t + \lambda \theta_t)`; with weight decay
    it is the source's AdaiW. For that of its Adai, which is part of the gradient, put
    `optax.add_decayed_weights` in front. The documentation of `scale_by_adai` has the
    equations, and says when to use the method.

    Args:
      learning_rate: :math:`\alpha`, at least 0; a number, a 0-d array or a schedule.
      b0: :math:`\beta_0`, at least 0.
      b2: second-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      eps: :math:`\epsilon` in (0, 1]; :math:`1 - \epsilon` is the largest decay.
      mu_dtype: real dtype of the first moment; by default each parameter's.
      weight_decay: :math:`\lambda`, at least 0, decoupled as in AdamW; a number, a 0-d
        array or a schedule. Unless it is 0, ``update`` needs ``params``.
      mask: which leaves have weight decay: a tree of booleans or a function of the
        parameters, as for `optax.add_decayed_weights`.

    Returns:
      A gradient transformation.

    Raises:
      ValueError: a number is out of its range.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum(jnp.array([1.0, 0.1]) * (params - 1) ** 2)
      >>> optimizer = optax_extras.adai(0.3)
      >>> params = jnp.zeros(2)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.02)
      True

    References:
      Xie et al. 2020, "Adaptive Inertia: Disentangling the Effects of Adaptive Learning
      Rate and Momentum", arXiv 2006.15815
    """
    return stages.optimizer(
        scale_by_adai(b0, b2, eps, mu_dtype=mu_dtype), learning_rate, weight_decay, mask
    )


def _step_leaf(
    gradient: Any, mu: jax.Array, nu: jax.Array, weight: jax.Array, by: _Scalars
) -> tuple[jax.Array, ...]:
    """One step of one leaf: (update, new mu, new nu, new weight)."""
    dtype = jnp.result_type(gradient)
    compute = dtypes.compute_dtype(dtype, mu.dtype, nu.dtype)
    real = dtypes.real_dtype(compute)
    b0, b2, eps, mean = (scalars.scalar(x, real) for x in by)
    g = jnp.asarray(gradient).astype(compute)
    v = b2 * nu.astype(real) + (1 - b2) * leaves.squared_magnitude(g)
    gain = b0 * (v / jnp.where(mean > 0, mean, 1))
    # At a bound, `jnp.clip` halves the derivatives.
    gain = jnp.where(gain < eps, eps, gain)
    gain = jnp.where(gain > 1, 1, gain)
    m = leaves.by_part(lambda m, g: (1 - gain) * m + gain * g, mu.astype(compute), g)
    w = (1 - gain) * weight.astype(real) + gain
    update = leaves.by_part(lambda m: m / w, dtypes.as_stored(m, mu.dtype, dtype))
    return (
        update.astype(dtype),
        m.astype(mu.dtype),
        v.astype(nu.dtype),
        w.astype(weight.dtype),
    )


def _mean_square(gradient: Any, dtype: Any) -> jax.Array:
    """The mean of |g|² over a leaf, 0 if it has no elements."""
    # Behind a barrier of its own: XLA would write squares that two kernels share.
    g = barrier(jnp.asarray(gradient))
    g = g.astype(dtypes.compute_dtype(g.dtype, dtype))
    total = jnp.sum(leaves.squared_magnitude(g)).astype(dtype)
    mean: jax.Array = leaves.below_infinity(total) / max(g.size, 1)
    return mean


def _mean(updates: optax.Updates, means: Any, dtype: Any) -> jax.Array:
    """The mean over all leaves that have a gradient, from the mean of each."""
    sizes = leaves.map_gradients(jnp.size, updates)
    total = max(sum(jax.tree.leaves(sizes)), 1)
    parts = leaves.map_gradients(
        lambda size, mean: (size / total) * mean.astype(dtype), sizes, means
    )
    return sum(jax.tree.leaves(parts), jnp.zeros((), dtype))
