"""diffGrad: Adam with smaller steps where the gradient hardly changes (Dubey 2019)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars, smooth, stages
from optax_extras.adaptive import _adam
from optax_extras.typing import DTypeLike, Scalar, ScalarOrSchedule


class ScaleByDiffGradState(NamedTuple):
    """State of `scale_by_diffgrad`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    mu: optax.Updates  # first moment; the parameters' shapes
    nu: optax.Updates  # second moment; their shapes, real, float32 or wider
    previous: optax.Updates  # the last gradient; their shapes and dtypes
    mu_weight: jax.Array  # 1 − ∏ β1; float32[] or float64[]
    nu_weight: jax.Array  # 1 − ∏ β2; float32[] or float64[]


def scale_by_diffgrad(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: Scalar = 1e-8,
    *,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales gradients like Adam, and halves the step where they do not change.

    The source means it for convolutional networks: where a gradient is steady, an
    optimum may be near, and Adam's steps are too long. Try it where the last steps of
    Adam go to and fro. The friction depends on the scale of the gradient: while no
    element changes by more than 0.1 between steps, as in most networks, it is between
    0.5 and 0.525 everywhere, and the method is Adam at half the learning rate. Compare
    it with that. It stores one more copy of the gradient than Adam.

    With :math:`\beta_1` = ``b1``, :math:`\beta_2` = ``b2``, :math:`\epsilon` = ``eps``,
    :math:`\epsilon_0` = ``eps_root``, :math:`\sigma` the logistic function,
    :math:`g_0 = 0` and t = 1 at the first update, for each element:

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \xi_t &= \sigma(|g_t - g_{t-1}|), \qquad
        u_t = \xi_t \frac{m_t / (1 - \prod_i \beta_{1,i})}
            {\sqrt{v_t / (1 - \prod_i \beta_{2,i}) + \epsilon_0} + \epsilon}

    :math:`\xi` is the friction, from ½ for a gradient that stays to 1 for one that
    changes much; at 1 this is Adam.

    *Differences from the source*: decays may be schedules, and the products above,
    which for constants are the source's :math:`\beta^t`, are then the exact weights. In
    the authors' first code, which by its comments is that of the paper, the gradient
    overwrites the last one before this is read, so that the friction is ½ from step two
    on. Here it is that of the formula, as in their second code. For a complex gradient,
    the change is the modulus.

    Args:
      b1: first-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      b2: second-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      eps: added to the root of the second moment, at least 0.
      eps_root: added under that root, at least 0; if positive, it bounds derivatives of
        the update at small gradients.
      mu_dtype: real dtype of the first moment; by default each parameter's. The second
        moment is in float32 or wider. In half precision, updates come from the first
        moment as it is stored.

    Returns:
      A gradient transformation. Its state is three copies of the parameters and 12
      bytes. On a CPU, a step takes one more copy of temporary memory.

    Raises:
      ValueError: a number is out of its range; at ``update``, the gradients do not have
        the structure and shapes of the parameters.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax.chain(
      ...     optax_extras.scale_by_diffgrad(), optax.scale_by_learning_rate(0.1)
      ... )
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Dubey et al. 2019, "diffGrad: An Optimization Method for Convolutional Neural
      Networks", arXiv 1909.11015
    """
    b1 = checks.decay("b1", b1, schedule=True)
    b2 = checks.decay("b2", b2, schedule=True)
    eps = checks.nonnegative("eps", eps)
    eps_root = checks.nonnegative("eps_root", eps_root)
    mu_dtype = checks.floating_dtype("mu_dtype", mu_dtype)

    def init(params: optax.Params) -> ScaleByDiffGradState:
        checks.check_inexact("params", params)
        dtype = dtypes.statistic_dtype(params)
        return ScaleByDiffGradState(
            count=jnp.zeros((), jnp.int32),
            mu=leaves.zeros_like(params, mu_dtype),
            nu=leaves.real_zeros_like(params),
            previous=leaves.zeros_like(params),
            mu_weight=jnp.zeros((), dtype),
            nu_weight=jnp.zeros((), dtype),
        )

    def update(
        updates: optax.Updates,
        state: ScaleByDiffGradState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByDiffGradState]:
        del params, extra_args
        checks.check_gradients(updates, state.mu)
        mu_decay, nu_decay = (
            scalars.evaluate(b, state.count, state.mu_weight.dtype) for b in (b1, b2)
        )
        mu_weight = smooth.next_weight(mu_decay, state.mu_weight)
        nu_weight = smooth.next_weight(nu_decay, state.nu_weight)

        def leaf(
            g: Any, mu: jax.Array, nu: jax.Array, old: jax.Array
        ) -> tuple[Any, ...]:
            friction = _friction(old, jnp.asarray(g))
            weight = mu_weight.astype(friction.dtype) / friction
            by = _adam.Scalars(mu_decay, weight, nu_decay, nu_weight, eps, eps_root)
            # Never true; XLA then reads `old` for the friction before it overwrites it.
            kept = jnp.where(friction < 0, 0, jnp.asarray(g).astype(old.dtype))
            return (*_adam.step_leaf(g, mu, nu, by), kept)

        updates, mu, nu, previous = leaves.map_with_buffers(
            leaf, updates, (state.mu, state.nu, state.previous)
        )
        return updates, ScaleByDiffGradState(
            optax.safe_increment(state.count), mu, nu, previous, mu_weight, nu_weight
        )

    return optax.GradientTransformationExtraArgs(init, update)


def diffgrad(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: Scalar = 1e-8,
    *,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""diffGrad: Adam with smaller steps where the gradient hardly changes.

    A chain of `scale_by_diffgrad`, decoupled weight decay and the learning rate:
    :math:`\theta_{t+1} = \theta_t - \alpha (u_t + \lambda \theta_t)`. The documentation
    of `scale_by_diffgrad` has the equations, and says when to use the method and what
    its friction depends on.

    Args:
      learning_rate: :math:`\alpha`, at least 0; a number, a 0-d array or a schedule.
      b1: first-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      b2: second-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      eps: added to the root of the second moment, at least 0.
      eps_root: added under that root, at least 0.
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
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax_extras.diffgrad(0.1)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Dubey et al. 2019, "diffGrad: An Optimization Method for Convolutional Neural
      Networks", arXiv 1909.11015
    """
    return stages.optimizer(
        scale_by_diffgrad(b1, b2, eps, eps_root=eps_root, mu_dtype=mu_dtype),
        learning_rate,
        weight_decay,
        mask,
    )


def _friction(old: jax.Array, new: jax.Array) -> jax.Array:
    """σ(|new − old|) per element, in [½, 1], float32 or wider."""
    compute = dtypes.compute_dtype(old.dtype, new.dtype)
    # As it will be stored, so that a gradient that stays has no difference.
    difference = new.astype(old.dtype).astype(compute) - old.astype(compute)
    # σ by a hyperbolic tangent, which takes less time than an exponential.
    return (1 + jnp.tanh(jnp.abs(difference) / 2)) / 2
