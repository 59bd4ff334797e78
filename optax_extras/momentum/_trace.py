"""Momentum with exact bias correction (Polyak 1964; Sutskever et al. 2013)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, gaussian, leaves, scalars, stages, trace
from optax_extras._core.opaque import barrier
from optax_extras.typing import DTypeLike, KeyLike, Scalar, ScalarOrSchedule


class TraceWithBiasCorrectionState(NamedTuple):
    """State of `trace_with_bias_correction` and of `momentum_sgd`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    trace: optax.Updates  # γ-discounted sum of updates; the parameters' shapes
    weight: jax.Array  # w, the trace of a constant 1; float32[] or float64[]


def _accumulate(
    decay: ScalarOrSchedule,
    *,
    gain: ScalarOrSchedule = 1.0,
    nesterov: bool = False,
    bias_correction: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    start: Callable[[Any, Any], Any] = lambda zeros, params: zeros,
) -> optax.GradientTransformationExtraArgs:
    """Accumulates the trace m ← gain·g + decay·m; callers check the arguments.

    `start` maps a trace of zeros, and the parameters, to the initial trace.
    """

    def init(params: optax.Params) -> TraceWithBiasCorrectionState:
        checks.check_inexact("params", params)
        return TraceWithBiasCorrectionState(
            count=jnp.zeros((), jnp.int32),
            trace=start(leaves.zeros_like(params, accumulator_dtype), params),
            weight=jnp.zeros((), dtypes.statistic_dtype(params)),
        )

    def update(
        updates: optax.Updates,
        state: TraceWithBiasCorrectionState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TraceWithBiasCorrectionState]:
        del params, extra_args
        checks.check_gradients(updates, state.trace)
        dtype = state.weight.dtype
        gamma = scalars.evaluate(decay, state.count, dtype)
        weight = 1 + gamma * state.weight
        emitted_weight = 1 + gamma * weight if nesterov else weight
        factor = scalars.evaluate(gain, state.count, dtype)
        coefficients = trace.Coefficients(
            decay=gamma,
            gain=factor,
            direct=factor if nesterov else None,
            carried=gamma if nesterov else jnp.ones((), dtype),
            divisor=emitted_weight * (1 - gamma) if bias_correction else None,
        )
        updates, m = leaves.map_with_buffers(
            lambda g, m: trace.advance(g, m, coefficients), updates, [state.trace]
        )
        count = optax.safe_increment(state.count)
        return updates, TraceWithBiasCorrectionState(count, m, weight)

    return optax.GradientTransformationExtraArgs(init, update)


def trace_with_bias_correction(
    decay: ScalarOrSchedule = 0.9,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    *,
    bias_correction: bool = True,
    initial_scale: Scalar | None = None,
    key: KeyLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Accumulates a bias-corrected momentum trace, with full gain from the first step.

    Use it if the first steps of momentum SGD are too small, as they may be in short
    runs or if the decay is raised during training. After 20 steps it was ahead of
    momentum without correction on some tasks of docs/evidence.md, and not on others.
    The first step is :math:`1/(1-\gamma)` times plain SGD's, so a learning rate at the
    edge of stability may need a warm-up. Without correction the trace itself grows
    slowly and acts as a warm-up.

    With :math:`\gamma_t` = ``decay`` (a schedule is evaluated at the count of updates,
    from 0), and trace m and weight w initially zero:

    .. math::

        m_t = \gamma_t m_{t-1} + g_t, \qquad w_t = 1 + \gamma_t w_{t-1}, \qquad
        u_t = \frac{m_t}{w_t (1 - \gamma_t)}

    and with ``nesterov``

    .. math::

        u_t = \frac{g_t + \gamma_t m_t}{(1 + \gamma_t w_t)(1 - \gamma_t)}

    For a constant decay the divisor is :math:`1 - \gamma^t`. A constant gradient g
    gives :math:`g / (1 - \gamma_t)` at every step, also under a schedule.

    ``bias_correction=False`` gives `optax.trace`. For a constant decay, `optax.ema`
    with ``debias=True`` gives :math:`1 - \gamma` times this update. PyTorch's
    ``SGD(momentum=γ, dampening=γ)`` multiplies all gradients but the first by
    :math:`1 - \gamma` and has no bias correction.

    *Differences from the source*: the papers below do not correct the bias. Adam's
    divisor :math:`1 - \gamma^t` is wrong when the decay varies; w is the exact
    generalisation.

    Args:
      decay: γ in [0, 1); a number, a 0-d array or a schedule. 0 is plain SGD.
      nesterov: whether to emit Nesterov's form, for gradients at the current
        parameters.
      accumulator_dtype: real dtype of the trace; by default each parameter's. Complex
        parameters keep a complex trace. Arithmetic is in float32 or wider. In half
        precision, updates come from the trace as it is stored.
      bias_correction: whether to apply the divisor above.
      initial_scale: standard deviation of a random initial trace, at least 0; None or
        0 starts the trace at zero. The weight w does not include the initial trace.
      key: an int, a key from `jax.random.key`, or the uint32 words of one, for the
        random initial trace; required if ``initial_scale`` is positive, and not allowed
        otherwise. A second transformation of this kind needs a key of its own: with one
        key, both draw the same numbers.

    Returns:
      A gradient transformation. Its state is one copy of the parameters and 8 bytes.

    Raises:
      ValueError: ``decay`` is outside [0, 1), ``initial_scale`` is negative, or only
        one of ``initial_scale`` and ``key`` is given; at ``update``, the gradients do
        not have the structure and shapes of the parameters.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax.chain(
      ...     optax_extras.trace_with_bias_correction(0.9),
      ...     optax.scale_by_learning_rate(0.02),
      ... )
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(50):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Polyak 1964, "Some methods of speeding up the convergence of iteration methods"

      Sutskever et al. 2013, "On the importance of initialization and momentum in deep
      learning", ICML
    """
    decay = checks.decay("decay", decay, schedule=True)
    nesterov = checks.flag("nesterov", nesterov)
    bias_correction = checks.flag("bias_correction", bias_correction)
    accumulator_dtype = checks.floating_dtype("accumulator_dtype", accumulator_dtype)
    if initial_scale is not None:
        initial_scale = checks.nonnegative("initial_scale", initial_scale)
    random_start = not (initial_scale is None or checks.is_zero(initial_scale))
    if random_start != (key is not None):
        raise ValueError(
            "`key` must be given with a positive `initial_scale` and only then, got"
            f" initial_scale={initial_scale!r} and key={key!r}"
        )
    words = gaussian.key_words(key) if random_start else None

    def start(zeros: Any, params: Any) -> Any:
        if not random_start:
            return zeros
        noise = barrier(
            gaussian.gaussian_like(
                jnp.asarray(words), jnp.int32(0), params, stream="initial_momentum"
            )
        )
        scale = jnp.asarray(initial_scale)
        return jax.tree.map(lambda m, z: leaves.add_scaled(m, (scale, z)), zeros, noise)

    return _accumulate(
        decay,
        nesterov=nesterov,
        bias_correction=bias_correction,
        accumulator_dtype=accumulator_dtype,
        start=start,
    )


def momentum_sgd(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    *,
    nesterov: bool = False,
    bias_correction: bool = False,
    learning_rate_inside: bool = True,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with momentum and the learning rate inside the velocity.

    Use it on ill-conditioned losses, where it converges much faster than plain SGD
    (docs/evidence.md). Elsewhere it may act as a larger step: on digits
    (colab/momentum.ipynb) plain SGD with the learning rate :math:`\eta / (1 - \gamma)`
    does as well while that is small. With larger steps momentum had the lower training
    loss, and remained stable where plain SGD did not; at learning rates chosen by
    validation, its test loss was no better. ``nesterov=True`` damps oscillations, and
    is not always faster.

    With :math:`\eta_t` = ``learning_rate`` and :math:`\gamma_t` = ``momentum``:

    .. math::

        v_t = \gamma_t v_{t-1} + \eta_t \nabla L(\theta_t), \qquad
        \theta_{t+1} = \theta_t - v_t

    A change of the learning rate therefore acts on new gradients only, and the
    accumulated velocity does not change. `optax.sgd` and PyTorch keep the learning rate
    outside, :math:`m_t = \gamma m_{t-1} + \nabla L`, :math:`\theta_{t+1} = \theta_t -
    \eta_t m_t`; ``learning_rate_inside=False`` selects this form. The two agree while
    the learning rate is constant. The notation with the opposite sign, :math:`v =
    \gamma v - \eta g`, :math:`\theta \leftarrow \theta + v`, is the same method.

    Args:
      learning_rate: :math:`\eta`, at least 0; a number, a 0-d array or a schedule.
      momentum: :math:`\gamma` in [0, 1); a number, a 0-d array or a schedule, often
        raised from 0.5 to 0.9 or 0.99 (`sutskever_momentum`). 0 is plain SGD.
      nesterov: whether to use the form of Nesterov's method that takes gradients at the
        current parameters: :math:`\theta_{t+1} = \theta_t - \eta_t g_t - \gamma_t v_t`.
      bias_correction: whether to correct the bias of the velocity, as in
        `trace_with_bias_correction`.
      learning_rate_inside: whether the velocity contains the learning rate.
      accumulator_dtype: real dtype of the velocity; by default each parameter's. For
        half-precision parameters and a small learning rate, float32 keeps contributions
        that the parameter's dtype would round away.

    Returns:
      A gradient transformation that contains the learning rate. If the rate is inside,
      the ``trace`` of its state is :math:`-v`.

    Raises:
      ValueError: a number is out of its range.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax_extras.momentum_sgd(0.02, momentum=0.9)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Polyak 1964, "Some methods of speeding up the convergence of iteration methods"

      Sutskever et al. 2013, "On the importance of initialization and momentum in deep
      learning", ICML
    """
    inside = checks.flag("learning_rate_inside", learning_rate_inside)
    accumulate = partial(
        _accumulate,
        checks.decay("momentum", momentum, schedule=True),
        nesterov=checks.flag("nesterov", nesterov),
        bias_correction=checks.flag("bias_correction", bias_correction),
        accumulator_dtype=checks.floating_dtype("accumulator_dtype", accumulator_dtype),
    )
    if inside:
        return accumulate(gain=stages.descent(learning_rate))
    return optax.chain(accumulate(), stages.scale_by_learning_rate(learning_rate))
