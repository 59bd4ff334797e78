"""QHAdam, Adam with quasi-hyperbolic averages (Ma & Yarats 2018, arXiv 1810.06801)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars, smooth, stages
from optax_extras.adaptive import _adam
from optax_extras.typing import DTypeLike, Scalar, ScalarOrSchedule


class ScaleByQHAdamState(NamedTuple):
    """State of `scale_by_qhadam`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    mu: optax.Updates  # first moment; the parameters' shapes
    nu: optax.Updates  # second moment; their shapes, real, float32 or wider
    mu_weight: jax.Array  # 1 − ∏ β1; float32[] or float64[]
    nu_weight: jax.Array  # 1 − ∏ β2; float32[] or float64[]


def scale_by_qhadam(
    b1: ScalarOrSchedule = 0.995,
    b2: ScalarOrSchedule = 0.999,
    nu1: ScalarOrSchedule = 0.7,
    nu2: ScalarOrSchedule = 1.0,
    eps: Scalar = 1e-8,
    *,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales gradients like Adam, with quasi-hyperbolic averages (QHAdam).

    Use it in place of Adam to give the first moment a long memory: the share :math:`1 -
    \nu_1` of a gradient acts at once, and the rest over about :math:`1 / (1 -
    \beta_1)` steps. The defaults are those of the authors' own example. The paper keeps
    :math:`\nu_2 = 1` and Adam's :math:`\beta_2`, and takes a lower :math:`\nu_2` where
    training is unstable: a large gradient after many small ones is scaled to the size
    :math:`(1 - \nu_1 \beta_1) / \sqrt{1 - \nu_2 \beta_2}`, which is 9.6 with the
    defaults and 3.2 for Adam.

    With :math:`\beta_1` = ``b1``, :math:`\beta_2` = ``b2``, :math:`\nu_1` = ``nu1``,
    :math:`\nu_2` = ``nu2``, :math:`\epsilon` = ``eps``, :math:`\epsilon_0` =
    ``eps_root``, and all four of the former may be schedules of the count, from 0:

    .. math::

        m_t &= \beta_{1,t} m_{t-1} + (1 - \beta_{1,t}) g_t, \qquad
        \hat m_t = \frac{m_t}{1 - \prod_{i \le t} \beta_{1,i}} \\
        v_t &= \beta_{2,t} v_{t-1} + (1 - \beta_{2,t}) g_t^2, \qquad
        \hat v_t = \frac{v_t}{1 - \prod_{i \le t} \beta_{2,i}} \\
        u_t &= \frac{(1 - \nu_1) g_t + \nu_1 \hat m_t}
            {\sqrt{(1 - \nu_2) g_t^2 + \nu_2 \hat v_t + \epsilon_0} + \epsilon}

    ``nu1=nu2=1`` is Adam, with debiasing that is exact where the decays vary;
    `optax.scale_by_adam` divides by :math:`1 - \beta_{1,t}^t`. ``nu1=b1``, ``nu2=1`` is
    close to NAdam, and ``nu1=nu2=0`` is the gradient divided by its own size.

    *Differences from the source*: the paper has constant decays. Where they vary, its
    own code averages gradients with other weights, as of a trace :math:`\beta_t m + g`
    divided by its sum; here they are those of the equations.

    Args:
      b1: first-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      b2: second-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      nu1: share of the first moment in the step, in [0, 1]; a number, a 0-d array or a
        schedule.
      nu2: share of the second moment under the root, in [0, 1]; a number, a 0-d array
        or a schedule.
      eps: added to the root of the second moment, at least 0.
      eps_root: added under that root, at least 0; if positive, it bounds derivatives of
        the update at small gradients.
      mu_dtype: real dtype of the first moment; by default each parameter's. The second
        moment is in float32 or wider. In half precision, updates come from the first
        moment as it is stored.

    Returns:
      A gradient transformation. Its state is two copies of the parameters and 12 bytes.

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
      ...     optax_extras.scale_by_qhadam(),
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
      Ma & Yarats 2018, "Quasi-hyperbolic momentum and Adam for deep learning", arXiv
      1810.06801
    """
    b1 = checks.decay("b1", b1, schedule=True)
    b2 = checks.decay("b2", b2, schedule=True)
    nu1 = checks.decay("nu1", nu1, schedule=True, or_one=True)
    nu2 = checks.decay("nu2", nu2, schedule=True, or_one=True)
    eps = checks.nonnegative("eps", eps)
    eps_root = checks.nonnegative("eps_root", eps_root)
    mu_dtype = checks.floating_dtype("mu_dtype", mu_dtype)

    def init(params: optax.Params) -> ScaleByQHAdamState:
        checks.check_inexact("params", params)
        dtype = dtypes.statistic_dtype(params)
        return ScaleByQHAdamState(
            count=jnp.zeros((), jnp.int32),
            mu=leaves.zeros_like(params, mu_dtype),
            nu=leaves.real_zeros_like(params),
            mu_weight=jnp.zeros((), dtype),
            nu_weight=jnp.zeros((), dtype),
        )

    def update(
        updates: optax.Updates,
        state: ScaleByQHAdamState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByQHAdamState]:
        del params, extra_args
        checks.check_gradients(updates, state.mu)

        def now(value: ScalarOrSchedule) -> jax.Array:
            return scalars.evaluate(value, state.count, state.mu_weight.dtype)

        def share(value: ScalarOrSchedule) -> jax.Array | None:
            return None if isinstance(value, float) and value == 1 else now(value)

        decay1, decay2 = now(b1), now(b2)
        mu_weight = smooth.next_weight(decay1, state.mu_weight)
        nu_weight = smooth.next_weight(decay2, state.nu_weight)
        by = _adam.Scalars(
            *(decay1, mu_weight, decay2, nu_weight, eps, eps_root),
            mu_share=share(nu1),
            nu_share=share(nu2),
        )
        updates, mu, nu = leaves.map_with_buffers(
            lambda g, mu, nu: _adam.step_leaf(g, mu, nu, by),
            updates,
            (state.mu, state.nu),
        )
        count = optax.safe_increment(state.count)
        return updates, ScaleByQHAdamState(count, mu, nu, mu_weight, nu_weight)

    return optax.GradientTransformationExtraArgs(init, update)


def qhadam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.995,
    b2: ScalarOrSchedule = 0.999,
    nu1: ScalarOrSchedule = 0.7,
    nu2: ScalarOrSchedule = 1.0,
    eps: Scalar = 1e-8,
    *,
    eps_root: Scalar = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""QHAdam: Adam with quasi-hyperbolic averages.

    A chain of `scale_by_qhadam`, decoupled weight decay and the learning rate:
    :math:`\theta_{t+1} = \theta_t - \alpha (u_t + \lambda \theta_t)`. The documentation
    of `scale_by_qhadam` has the equations, and says when to use the method.

    Args:
      learning_rate: :math:`\alpha`, at least 0; a number, a 0-d array or a schedule.
      b1: first-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      b2: second-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      nu1: share of the first moment in the step, in [0, 1]; a number, a 0-d array or a
        schedule.
      nu2: share of the second moment under the root, in [0, 1]; a number, a 0-d array
        or a schedule.
      eps: added to the root of the second moment, at least 0.
      eps_root: added under that root, at least 0.
      mu_dtype: real dtype of the first moment; by default each parameter's.
      weight_decay: :math:`\lambda`, at least 0, decoupled as in AdamW; a number, a 0-d
        array or a schedule. Unless it is 0, ``update`` needs ``params``.
      mask: which leaves have weight decay: a tree of booleans or a function of the
        parameters, as for `optax.add_decayed_weights`.

    Returns:
      A gradient transformation that contains the learning rate.

    Raises:
      ValueError: a number is out of its range.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax_extras.qhadam(0.05)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Ma & Yarats 2018, "Quasi-hyperbolic momentum and Adam for deep learning", arXiv
      1810.06801

      Loshchilov & Hutter 2017, "Decoupled Weight Decay Regularization", arXiv
      1711.05101
    """
    direction = scale_by_qhadam(
        b1, b2, nu1, nu2, eps, eps_root=eps_root, mu_dtype=mu_dtype
    )
    return stages.optimizer(direction, learning_rate, weight_decay, mask)
