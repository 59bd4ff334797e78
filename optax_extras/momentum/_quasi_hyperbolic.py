"""Quasi-hyperbolic momentum (Ma & Yarats 2018, arXiv 1810.06801)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars, stages, trace
from optax_extras.typing import DTypeLike, ScalarOrSchedule


class ScaleByQuasiHyperbolicMomentumState(NamedTuple):
    """State of `scale_by_quasi_hyperbolic_momentum` and of `qhm`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    average: optax.Updates  # m, the moving average of updates; the parameters' shapes


def scale_by_quasi_hyperbolic_momentum(
    decay: ScalarOrSchedule = 0.999,
    nu: ScalarOrSchedule = 0.7,
    *,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Averages the gradient with its moving average (QHM).

    Use it to give momentum a long memory without making it slow to react: the share
    :math:`1 - \nu` of a gradient acts at once, and the rest over about :math:`1 / (1 -
    \beta)` steps. The paper's rule of thumb, which is the default, is :math:`\beta =
    0.999` and :math:`\nu = 0.7`. In a run of fewer than some thousand steps, this
    :math:`\beta` leaves most of the average at its start of zero, and the steps are
    near :math:`1 - \nu` times those of plain SGD. Use a smaller one there, or
    `scale_by_qhadam`, which corrects the bias.

    With :math:`\beta_t` = ``decay`` and :math:`\nu_t` = ``nu`` (schedules are evaluated
    at the count of updates, from 0), and m initially zero:

    .. math::

        m_t = \beta_t m_{t-1} + (1 - \beta_t) g_t, \qquad
        u_t = (1 - \nu_t) g_t + \nu_t m_t

    ``nu=0`` is plain SGD, and ``nu=1`` is damped momentum, `optax.ema` without
    debiasing. With the learning rate :math:`\eta / (1 - \beta)`, ``nu=decay`` is
    Nesterov's momentum at the rate :math:`\eta`, ``optax.sgd(η, β, nesterov=True)``,
    and ``nu=1`` is plain momentum. In front of another optimizer, and multiplied by
    :math:`1 + \lambda`, the stage with :math:`\nu = \lambda / (1 + \lambda)` amplifies
    slow gradients as Grokfast does.

    *Differences from the source*: none. In the paper's own code, weight decay changes
    the caller's gradients, and the formula in the documentation adds the step that the
    code subtracts.

    Args:
      decay: β in [0, 1); a number, a 0-d array or a schedule.
      nu: ν in [0, 1]; a number, a 0-d array or a schedule.
      accumulator_dtype: real dtype of the average; by default each parameter's. In half
        precision, updates come from the average as it is stored, and a β near 1 leaves
        it unchanged: pass float32.

    Returns:
      A gradient transformation. Its state is one copy of the parameters and 4 bytes.

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
      ...     optax_extras.scale_by_quasi_hyperbolic_momentum(0.9, nu=0.7),
      ...     optax.scale_by_learning_rate(0.1),
      ... )
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(50):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Ma & Yarats 2018, "Quasi-hyperbolic momentum and Adam for deep learning", arXiv
      1810.06801
    """
    decay = checks.decay("decay", decay, schedule=True)
    nu = checks.decay("nu", nu, schedule=True, or_one=True)
    accumulator_dtype = checks.floating_dtype("accumulator_dtype", accumulator_dtype)

    def init(params: optax.Params) -> ScaleByQuasiHyperbolicMomentumState:
        checks.check_inexact("params", params)
        return ScaleByQuasiHyperbolicMomentumState(
            count=jnp.zeros((), jnp.int32),
            average=leaves.zeros_like(params, accumulator_dtype),
        )

    def update(
        updates: optax.Updates,
        state: ScaleByQuasiHyperbolicMomentumState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByQuasiHyperbolicMomentumState]:
        del params, extra_args
        checks.check_gradients(updates, state.average)
        dtype = dtypes.statistic_dtype(state.average)
        beta = scalars.evaluate(decay, state.count, dtype)
        share = scalars.evaluate(nu, state.count, dtype)
        coefficients = trace.Coefficients(
            decay=beta, gain=1 - beta, direct=1 - share, carried=share
        )
        updates, average = leaves.map_with_buffers(
            lambda g, m: trace.advance(g, m, coefficients), updates, [state.average]
        )
        count = optax.safe_increment(state.count)
        return updates, ScaleByQuasiHyperbolicMomentumState(count, average)

    return optax.GradientTransformationExtraArgs(init, update)


def qhm(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.999,
    nu: ScalarOrSchedule = 0.7,
    *,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with quasi-hyperbolic momentum (QHM).

    A chain of `scale_by_quasi_hyperbolic_momentum` and the learning rate:
    :math:`\theta_{t+1} = \theta_t - \alpha_t [(1 - \nu_t) g_t + \nu_t m_t]`. The
    documentation of the former has the equations, and says when to use the method.

    The average is damped, so learning rates are those of plain SGD: from
    ``optax.sgd(η, β)``, come with :math:`\alpha = \eta / (1 - \beta)`.

    Args:
      learning_rate: :math:`\alpha`, at least 0; a number, a 0-d array or a schedule.
      momentum: β in [0, 1); a number, a 0-d array or a schedule.
      nu: ν in [0, 1], the share of the average in a step; a number, a 0-d array or a
        schedule. 0 is plain SGD, and 1 damped momentum.
      accumulator_dtype: real dtype of the average; by default each parameter's.

    Returns:
      A gradient transformation that contains the learning rate.

    Raises:
      ValueError: a number is out of its range.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax_extras.qhm(0.1, momentum=0.9, nu=0.7)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(50):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Ma & Yarats 2018, "Quasi-hyperbolic momentum and Adam for deep learning", arXiv
      1810.06801
    """
    direction = scale_by_quasi_hyperbolic_momentum(
        checks.decay("momentum", momentum, schedule=True),
        nu,
        accumulator_dtype=accumulator_dtype,
    )
    return optax.chain(direction, stages.scale_by_learning_rate(learning_rate))
