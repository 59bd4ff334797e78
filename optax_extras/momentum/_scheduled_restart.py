"""Nesterov momentum restarted on a schedule (Wang et al. 2020, arXiv 2002.10583)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars, stages, trace
from optax_extras.typing import DTypeLike, ScalarOrSchedule


class SRSGDState(NamedTuple):
    """State of `srsgd`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    since_restart: jax.Array  # j, updates since the last restart; int32[]
    velocity: optax.Updates  # change of y in the last update; the parameters' shapes


def srsgd(
    learning_rate: ScalarOrSchedule,
    restart_every: int | ScalarOrSchedule = 40,
    *,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with Nesterov momentum and scheduled restarts (SRSGD).

    Use it to have Nesterov's increasing momentum with mini-batches. Without restarts
    that momentum tends to 1, and adds up the noise of ever more gradients; a restart
    every F steps keeps it below :math:`(F - 1) / (F + 2)`, which is 0.93 for 40. The
    paper uses it in place of constant momentum for image classification, at the same
    learning rate. For losses without noise, `adaptive_restart` finds the period itself.

    With :math:`\eta_t` = ``learning_rate``, F = ``restart_every`` and t = 0 at the
    first update, where :math:`y_0 = \theta_0`:

    .. math::

        y_{t+1} = \theta_t - \eta_t \nabla L(\theta_t), \qquad
        \theta_{t+1} = y_{t+1} + \frac{j}{j + 3} (y_{t+1} - y_t), \qquad
        j = t \bmod F

    The step after a restart is plain SGD's. Until the first restart, the parameters are
    the look-ahead points of Nesterov's method with the momentum (k − 1) / (k + 2), k =
    1, 2, …. The state holds :math:`y_{t+1} - y_t` in place of y, so the method composes
    with weight decay and other stages as any other.

    The paper lets F grow during training, such as 30, 60, 90 and 120 for CIFAR-10, at
    each drop of the learning rate: pass `optax.piecewise_constant_schedule` or any
    other schedule.

    *Differences from the source*: where F changes, j counts on to the new F; the
    paper's t mod F would jump. The paper's own code restarts after F − 1 steps, and
    gives momentum only to the first group of parameters.

    Args:
      learning_rate: :math:`\eta`, at least 0; a number, a 0-d array or a schedule.
      restart_every: F, at least 1; an integer, a 0-d array or a schedule. 1 is plain
        SGD.
      accumulator_dtype: real dtype of the velocity; by default each parameter's. In
        half precision, updates come from the velocity as it is stored.

    Returns:
      A gradient transformation that contains the learning rate. Its state is one copy
      of the parameters and 8 bytes.

    Raises:
      ValueError: a number is out of its range; at ``update``, the gradients do not have
        the structure and shapes of the parameters.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax_extras.srsgd(0.02, restart_every=20)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Wang et al. 2020, "Scheduled Restart Momentum for Accelerated Stochastic Gradient
      Descent", arXiv 2002.10583
    """
    factor = stages.descent(learning_rate)
    if not callable(restart_every):
        restart_every = checks.steps("restart_every", restart_every)
    accumulator_dtype = checks.floating_dtype("accumulator_dtype", accumulator_dtype)

    def init(params: optax.Params) -> SRSGDState:
        checks.check_inexact("params", params)
        return SRSGDState(
            count=jnp.zeros((), jnp.int32),
            since_restart=jnp.zeros((), jnp.int32),
            velocity=leaves.zeros_like(params, accumulator_dtype),
        )

    def update(
        updates: optax.Updates,
        state: SRSGDState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SRSGDState]:
        del params, extra_args
        checks.check_gradients(updates, state.velocity)
        dtype = dtypes.statistic_dtype(state.velocity)
        gain = scalars.evaluate(factor, state.count, dtype)
        j = state.since_restart.astype(dtype)
        # The velocity was carried with the last step's momentum; 0 after a restart.
        coefficients = trace.Coefficients(
            decay=jnp.maximum(j - 1, 0) / (j + 2),
            gain=gain,
            direct=gain,
            carried=j / (j + 3),
        )
        updates, velocity = leaves.map_with_buffers(
            lambda g, v: trace.advance(g, v, coefficients), updates, [state.velocity]
        )
        period = scalars.evaluate(restart_every, state.count, dtype)
        since_restart = optax.safe_increment(state.since_restart)
        return updates, SRSGDState(
            count=optax.safe_increment(state.count),
            since_restart=jnp.where(
                since_restart.astype(dtype) >= period, 0, since_restart
            ),
            velocity=velocity,
        )

    return optax.GradientTransformationExtraArgs(init, update)
