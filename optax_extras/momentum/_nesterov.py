"""Nesterov momentum with gradients taken at the look-ahead point (Nesterov 1983)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars, trace
from optax_extras.typing import DTypeLike, ScalarOrSchedule


class NesterovLookaheadState(NamedTuple):
    """State of `nesterov_lookahead`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    velocity: optax.Updates  # v; the parameters' shapes
    momentum: jax.Array  # γ of the next look-ahead point; float32[] or float64[]


def nesterov_lookahead(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    *,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Nesterov momentum for gradients taken at the look-ahead point.

    Use it if the parameters themselves, and not the look-ahead points, must follow
    Nesterov's iterates, or if the learning rate or momentum varies. For gradients at
    the current parameters use `momentum_sgd` with ``nesterov=True``, which needs no
    second point.

    With :math:`\eta_t` = ``learning_rate`` and :math:`\gamma_t` = ``momentum``:

    .. math::

        v_t = \gamma_t v_{t-1} + \eta_t \nabla L(\theta_t - \gamma_t v_{t-1}), \qquad
        \theta_{t+1} = \theta_t - v_t

    The caller differentiates at :math:`\theta_t - \gamma_t v_{t-1}`, which
    `nesterov_lookahead_params` computes, and applies the update to :math:`\theta_t`.
    For constant :math:`\eta` and :math:`\gamma` the look-ahead points are the iterates
    of ``optax.sgd(learning_rate, momentum, nesterov=True)``.

    *Differences from the source*: none. The state holds the momentum of the next
    look-ahead point. A change of ``momentum`` through `optax.inject_hyperparams`
    therefore takes effect at the next point, not between a point and its update.

    Args:
      learning_rate: :math:`\eta`, at least 0; a number, a 0-d array or a schedule.
      momentum: :math:`\gamma` in [0, 1); a number, a 0-d array or a schedule.
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
      >>> optimizer = optax_extras.nesterov_lookahead(0.02, momentum=0.9)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     ahead = optax_extras.nesterov_lookahead_params(state, params)
      ...     updates, state = optimizer.update(jax.grad(loss)(ahead), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Nesterov 1983, "A method for solving the convex programming problem with
      convergence rate O(1/k²)"

      Sutskever et al. 2013, "On the importance of initialization and momentum in deep
      learning", ICML
    """
    learning_rate = checks.nonnegative("learning_rate", learning_rate, schedule=True)
    momentum = checks.decay("momentum", momentum, schedule=True)
    accumulator_dtype = checks.floating_dtype("accumulator_dtype", accumulator_dtype)

    def momentum_at(count: jax.Array, dtype: Any) -> jax.Array:
        # Copied, because the caller may donate the state, and keep the argument.
        return jnp.array(scalars.evaluate(momentum, count, dtype))

    def init(params: optax.Params) -> NesterovLookaheadState:
        checks.check_inexact("params", params)
        count = jnp.zeros((), jnp.int32)
        return NesterovLookaheadState(
            count=count,
            velocity=leaves.zeros_like(params, accumulator_dtype),
            momentum=momentum_at(count, dtypes.statistic_dtype(params)),
        )

    def update(
        updates: optax.Updates,
        state: NesterovLookaheadState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, NesterovLookaheadState]:
        del params, extra_args
        checks.check_gradients(updates, state.velocity)
        dtype = state.momentum.dtype
        coefficients = trace.Coefficients(
            decay=state.momentum,
            gain=scalars.evaluate(learning_rate, state.count, dtype),
            direct=None,
            carried=jnp.full((), -1, dtype),
        )
        updates, velocity = leaves.map_with_buffers(
            lambda g, v: trace.advance(g, v, coefficients), updates, [state.velocity]
        )
        count = optax.safe_increment(state.count)
        return updates, NesterovLookaheadState(
            count, velocity, momentum_at(count, dtype)
        )

    return optax.GradientTransformationExtraArgs(init, update)


def nesterov_lookahead_params(
    opt_state: optax.OptState, params: optax.Params
) -> optax.Params:
    r"""Computes the look-ahead point, at which `nesterov_lookahead` needs gradients.

    The point is :math:`\theta_t - \gamma_t v_{t-1}`, which is :math:`\theta_t` at the
    first step. Leaves that are masked out of the transformation are returned unchanged.

    Args:
      opt_state: the state of `nesterov_lookahead`, also inside `optax.chain`,
        `optax.masked`, `optax.partition`, `optax.MultiSteps` and the like.
      params: the parameters :math:`\theta_t`, in the structure given to ``init``.
        `flax.nnx.Optimizer` wraps each array of its state in a variable; unwrap the
        state and the parameters with ``nnx.as_pure``.

    Returns:
      The point, in the parameters' structure and dtypes.

    Raises:
      ValueError: ``opt_state`` contains no state of `nesterov_lookahead`, or the state
        belongs to other parameters.

    Examples:
      >>> import jax.numpy as jnp, optax_extras
      >>> optimizer = optax_extras.nesterov_lookahead(1.0, momentum=0.5)
      >>> params = jnp.zeros(2)
      >>> _, state = optimizer.update(jnp.ones(2), optimizer.init(params))
      >>> optax_extras.nesterov_lookahead_params(state, params)
      Array([-0.5, -0.5], dtype=float32)
    """

    def is_ours(node: Any) -> bool:
        return isinstance(node, NesterovLookaheadState)

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    states = [s for s in jax.tree.leaves(opt_state, is_leaf=is_ours) if is_ours(s)]
    if not states:
        raise ValueError(
            "`opt_state` must hold the state of `nesterov_lookahead`, got"
            f" {jax.tree.structure(opt_state)}"
        )

    def look_ahead(state: NesterovLookaheadState, params: optax.Params) -> optax.Params:
        def leaf(v: Any, p: Any) -> Any:
            if is_masked(v):
                return p
            if jnp.shape(v) != jnp.shape(p):
                raise ValueError(f"shape {jnp.shape(p)}, velocity {jnp.shape(v)}")
            return leaves.add_scaled(p, (-state.momentum, v))

        try:
            return jax.tree.map(leaf, state.velocity, params, is_leaf=is_masked)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "`params` must have the structure and shapes of those given to `init`,"
                f" got {jax.tree.structure(params)} for a velocity of"
                f" {jax.tree.structure(state.velocity)}: {error}"
            ) from error

    for state in states:  # optax.partition keeps one state per group of leaves
        params = look_ahead(state, params)
    return params
