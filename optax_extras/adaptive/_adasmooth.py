"""AdaSmooth: Adam with a first-moment decay that rises while the gradient is steady.

Another method has the same name (Lu 2022, arXiv 2204.00825); it is not in this library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, leaves, scalars, smooth, stages
from optax_extras._core.opaque import barrier
from optax_extras.adaptive import _adam, _variation
from optax_extras.typing import DTypeLike, Scalar, ScalarOrSchedule

Smoothness = Callable[[jax.Array], jax.Array]


class ScaleByAdaSmoothState(NamedTuple):
    """State of `scale_by_adasmooth`.

    Fields marked * have one entry for the tree, each leaf or each element (`scope`).
    """

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    mu: optax.Updates  # first moment; the parameters' shapes
    nu: optax.Updates  # second moment; their shapes, real, float32 or wider
    previous: optax.Updates  # the last gradient; their shapes and dtypes
    variation: Any  # v: average squared change of the gradient*; float32 or wider
    mu_weight: Any  # 1 − ∏ β1*; None unless debias is "product"


def scale_by_adasmooth(
    b1_min: Scalar = 0.9,
    b1_max: Scalar = 0.999,
    b2: Scalar = 0.999,
    gamma: Scalar = 0.9,
    eps: Scalar = 1e-8,
    *,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    scope: str = "tree",
    normalize: bool = False,
    smoothness: Smoothness | None = None,
    debias: str = "power",
) -> optax.GradientTransformationExtraArgs:
    r"""Scales gradients like Adam, with a longer memory while they are steady.

    The method has no paper. Its source is an informal description, which recommends it
    over Adam for noisy labels, reinforcement learning and non-stationary losses. On
    this library's tasks (docs/evidence.md) it did not differ from Adam with wrong
    labels, and was worse than Adam with a minimum that jumps. With the defaults its
    memory barely adapts (see below); try ``normalize=True`` and ``debias="product"``,
    and compare with plain Adam. It stores one more copy of the gradient than Adam.

    With :math:`\beta_{1,\min}` = ``b1_min``, :math:`\beta_{1,\max}` = ``b1_max``,
    :math:`\beta_2` = ``b2``, :math:`\gamma` = ``gamma``, :math:`\epsilon` = ``eps``,
    :math:`\epsilon_0` = ``eps_root``, :math:`\sigma` the logistic function and t = 1 at
    the first update:

    .. math::

        \Delta_t &= \|g_t - g_{t-1}\|^2 \quad (\Delta_1 = 0), \qquad
        v_t = \gamma v_{t-1} + (1 - \gamma) \Delta_t \\
        \beta_{1,t} &= \beta_{1,\min}
            + (\beta_{1,\max} - \beta_{1,\min})\, \sigma(-v_t) \\
        m_t &= \beta_{1,t} m_{t-1} + (1 - \beta_{1,t}) g_t, \qquad
        s_t = \beta_2 s_{t-1} + (1 - \beta_2) g_t^2 \\
        u_t &= \frac{m_t / (1 - \beta_{1,t}^t)}
            {\sqrt{s_t / (1 - \beta_2^t) + \epsilon_0} + \epsilon}

    ``b1_min == b1_max`` gives Adam. The debiasing is computed without cancellation; in
    float32 with ``b2=0.999``, the first step of `optax.scale_by_adam` is off by 7e-6.

    This literal form has two weaknesses, each with a remedy:

    1. :math:`1 - \beta_{1,t}^t` is not the total weight of the gradients in
       :math:`m_t` when :math:`\beta_1` varies. If an alternating gradient becomes
       steady early in training, the steps are too large by a factor of up to 1.11 with
       the defaults, 1.5 with ``gamma=0``, and 10 with the ``smoothness`` of the next
       point, which uses the whole range. ``debias="product"`` divides by the exact
       weight :math:`1 - \prod_i \beta_{1,i}`.
    2. :math:`\sigma(-v)` is at most ½, so :math:`\beta_1` never passes the middle of
       its range (0.9495 by default); and v depends on the gradient's scale and
       dimension: for v > 5, :math:`\beta_1` is within 1 % of its range of ``b1_min``.
       ``normalize=True`` divides :math:`\Delta_t` by :math:`\|g_t\|^2 +
       \|g_{t-1}\|^2`, which makes v a number in [0, 2] (0 steady, 1 uncorrelated, 2
       alternating), independent of scale as long as the squares fit the dtype.
       ``smoothness=lambda v: jnp.exp(-v)`` uses the whole range. With the default
       ``b1_max`` the memory is then 1000 steps, which is too long to follow a minimum
       that jumps every 100, so choose ``b1_min`` and ``b1_max`` too.

    *Differences from the source*: the source leaves the scope of the norm open; here it
    is an option. This is not AdaSmooth by Lu (2022, arXiv 2204.00825), which adapts the
    decay of the second moment by an "effective ratio".

    Args:
      b1_min: first-moment decay for an unsteady gradient, in [0, 1).
      b1_max: first-moment decay for a steady one, in [``b1_min``, 1).
      b2: second-moment decay, in [0, 1).
      gamma: decay of the average change, in [0, 1).
      eps: added to the root of the second moment, at least 0.
      eps_root: added under that root, at least 0; if positive, it bounds derivatives of
        the update at small gradients.
      mu_dtype: real dtype of the first moment; by default each parameter's. The second
        moment is in float32 or wider: a decay of 0.999 would not change it in bfloat16.
        In half precision, updates come from the first moment as it is stored.
      scope: the scope of the norm: the whole ``"tree"`` (the source), each ``"leaf"``
        or each ``"element"``, which stores one or two more floats per parameter. Inside
        `jax.shard_map`, the norm covers only the shard's part of a tree or leaf.
      normalize: whether to divide the change by the squared norms of both gradients.
      smoothness: an elementwise function from v to [0, 1], clipped to that range; None
        means :math:`\sigma(-v)`. With `optax.inject_hyperparams`, name it in
        ``static_args``.
      debias: ``"power"`` (the source) or ``"product"`` (exact).

    Returns:
      A gradient transformation. Its state is three copies of the parameters and 8 bytes
      with the default scope.

    Raises:
      ValueError: a number is out of its range, ``b1_min`` is above ``b1_max``, or
        ``scope`` or ``debias`` is unknown; at ``update``, the gradients do not have the
        structure and shapes of the parameters, or ``smoothness`` changes the shape.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax.chain(
      ...     optax_extras.scale_by_adasmooth(normalize=True, debias="product"),
      ...     optax.scale_by_learning_rate(0.05),
      ... )
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      No paper; after Kingma & Ba 2014, "Adam: A Method for Stochastic Optimization",
      arXiv 1412.6980
    """
    b1_min = checks.decay("b1_min", b1_min)
    b1_max = checks.decay("b1_max", b1_max)
    if isinstance(b1_min, float) and isinstance(b1_max, float) and b1_min > b1_max:
        raise ValueError(f"`b1_min` must be <= `b1_max` = {b1_max}, got {b1_min}")
    b2 = checks.decay("b2", b2)
    gamma = checks.decay("gamma", gamma)
    eps = checks.nonnegative("eps", eps)
    eps_root = checks.nonnegative("eps_root", eps_root)
    mu_dtype = checks.floating_dtype("mu_dtype", mu_dtype)
    scope = checks.choice("scope", scope, _variation.SCOPES)
    normalize = checks.flag("normalize", normalize)
    debias = checks.choice("debias", debias, ("power", "product"))
    if smoothness is not None and not callable(smoothness):
        raise TypeError(f"`smoothness` must be a function, got {smoothness!r}")

    def init(params: optax.Params) -> ScaleByAdaSmoothState:
        checks.check_inexact("params", params)
        return ScaleByAdaSmoothState(
            count=jnp.zeros((), jnp.int32),
            mu=leaves.zeros_like(params, mu_dtype),
            nu=leaves.real_zeros_like(params),
            previous=leaves.zeros_like(params),
            variation=_variation.zero_statistic(params, scope),
            mu_weight=(
                _variation.zero_statistic(params, scope)
                if debias == "product"
                else None
            ),
        )

    def next_variation(state: ScaleByAdaSmoothState, updates: optax.Updates) -> Any:
        def advance(v: jax.Array, change: jax.Array) -> jax.Array:
            decay = scalars.scalar(gamma, v.dtype)
            change = jnp.where(state.count == 0, 0, change.astype(v.dtype))
            return decay * v + (1 - decay) * change

        change = _variation.change(state.previous, updates, scope, normalize)
        return jax.tree.map(advance, state.variation, change)

    def first_moment_decay(v: jax.Array) -> jax.Array:
        # σ(−v), for which a hyperbolic tangent takes less time than an exponential.
        steadiness = (1 - jnp.tanh(v / 2)) / 2 if smoothness is None else smoothness(v)
        if jnp.shape(steadiness) != v.shape:
            raise ValueError(
                f"`smoothness` must keep the shape {v.shape} of its argument, got"
                f" {jnp.shape(steadiness)}"
            )
        low, high = (scalars.scalar(b, v.dtype) for b in (b1_min, b1_max))
        steadiness = jnp.asarray(steadiness).astype(v.dtype)
        b1 = low + (high - low) * steadiness
        # At a bound, `jnp.clip` halves the derivatives.
        b1 = jnp.where(b1 < low, low, b1)
        return jnp.where(b1 > high, high, b1)

    def update(
        updates: optax.Updates,
        state: ScaleByAdaSmoothState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByAdaSmoothState]:
        del params, extra_args
        checks.check_gradients(updates, state.mu)
        count = optax.safe_increment(state.count)
        variation = next_variation(state, updates)
        b1 = jax.tree.map(first_moment_decay, variation)
        # A second kernel computes the decay anew: a barrier keeps XLA from writing the
        # decay of each element to memory for both.
        again = jax.tree.map(first_moment_decay, barrier(variation))
        if debias == "product":
            mu_weight = jax.tree.map(smooth.next_weight, again, state.mu_weight)
            divisor = mu_weight
        else:
            mu_weight = None
            divisor = jax.tree.map(lambda b: smooth.debiasing_weight(b, count), again)

        def adam(
            g: Any,
            mu: jax.Array,
            nu: jax.Array,
            old: jax.Array,
            v: Any,
            b1: Any,
            weight: Any,
        ) -> tuple[Any, ...]:
            nu_weight = smooth.debiasing_weight(scalars.scalar(b2, nu.dtype), count)
            by = _adam.Scalars(b1, weight, b2, nu_weight, eps, eps_root)
            # Never true, as v >= 0; XLA then reads `old` for v before it overwrites it.
            kept = jnp.where(v < -1, 0, jnp.asarray(g).astype(old.dtype))
            return (*_adam.step_leaf(g, mu, nu, by), kept)

        updates, mu, nu, previous = leaves.map_with_buffers(
            adam,
            updates,
            (state.mu, state.nu, state.previous),
            [_variation.per_leaf(x, scope, state.mu) for x in (variation, b1, divisor)],
        )
        return updates, ScaleByAdaSmoothState(
            count, mu, nu, previous, variation, mu_weight
        )

    return optax.GradientTransformationExtraArgs(init, update)


def adasmooth(
    learning_rate: ScalarOrSchedule,
    b1_min: Scalar = 0.9,
    b1_max: Scalar = 0.999,
    b2: Scalar = 0.999,
    gamma: Scalar = 0.9,
    eps: Scalar = 1e-8,
    *,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    scope: str = "tree",
    normalize: bool = False,
    smoothness: Smoothness | None = None,
    debias: str = "power",
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AdaSmooth: Adam with a longer memory while the gradient is steady.

    A chain of `scale_by_adasmooth`, decoupled weight decay and the learning rate:
    :math:`\theta_{t+1} = \theta_t - \alpha (u_t + \lambda \theta_t)`. The documentation
    of `scale_by_adasmooth` has the equations, says when to use the method, and
    describes its two weaknesses.

    Args:
      learning_rate: :math:`\alpha`, at least 0; a number, a 0-d array or a schedule.
      b1_min: first-moment decay for an unsteady gradient, in [0, 1).
      b1_max: first-moment decay for a steady one, in [``b1_min``, 1).
      b2: second-moment decay, in [0, 1).
      gamma: decay of the average change, in [0, 1).
      eps: added to the root of the second moment, at least 0.
      eps_root: added under that root, at least 0.
      mu_dtype: real dtype of the first moment; by default each parameter's.
      scope: ``"tree"``, ``"leaf"`` or ``"element"``.
      normalize: whether to make the change independent of the gradient's scale.
      smoothness: a function from the average change v to [0, 1]; None means
        :math:`\sigma(-v)`.
      debias: ``"power"`` (literal) or ``"product"`` (exact).
      weight_decay: :math:`\lambda`, at least 0, decoupled as in AdamW; a number, a 0-d
        array or a schedule. Unless it is 0, ``update`` needs ``params``.
      mask: which leaves have weight decay: a tree of booleans or a function of the
        parameters, as for `optax.add_decayed_weights`.

    Returns:
      A gradient transformation.

    Raises:
      ValueError: a number is out of its range, or an option is unknown.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax_extras.adasmooth(0.05)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      No paper; after Kingma & Ba 2014, "Adam: A Method for Stochastic Optimization",
      arXiv 1412.6980

      Loshchilov & Hutter 2017, "Decoupled Weight Decay Regularization", arXiv
      1711.05101
    """
    direction = scale_by_adasmooth(
        b1_min,
        b1_max,
        b2,
        gamma,
        eps,
        eps_root=eps_root,
        mu_dtype=mu_dtype,
        scope=scope,
        normalize=normalize,
        smoothness=smoothness,
        debias=debias,
    )
    return stages.optimizer(direction, learning_rate, weight_decay, mask)
