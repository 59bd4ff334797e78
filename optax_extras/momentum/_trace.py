"""Momentum with exact bias correction (Polyak 1964; Sutskever et al. 2013)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras import _numerics, _random, _scaling, _tracing, _validation
from optax_extras._opaque import barrier
from optax_extras._validation import Scalar, ScalarOrSchedule


def trace_with_bias_correction(
    decay: ScalarOrSchedule = 0.9,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
    *,
    bias_correction: bool = True,
    initial_scale: Scalar | None = None,
    key: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Accumulates a momentum trace that has its full gain from the first step.

    Use it where the first steps of momentum SGD are too small: short runs, fine-tuning,
    or a decay that is raised during training. Step one is :math:`1/(1-\gamma)` times
    plain SGD's, so a learning rate at the edge of stability may need a warm-up; without
    correction momentum has its own.

    With :math:`\gamma_t` = ``decay`` (of the count, from 0, where it is a schedule),
    trace m and weight w, both zero at first:

    .. math::

        m_t = \gamma_t m_{t-1} + g_t, \qquad w_t = 1 + \gamma_t w_{t-1}, \qquad
        u_t = \frac{m_t}{w_t (1 - \gamma_t)}

    and with ``nesterov``

    .. math::

        u_t = \frac{g_t + \gamma_t m_t}{(1 + \gamma_t w_t)(1 - \gamma_t)}

    For a constant decay the divisor is :math:`1 - \gamma^t`. A constant gradient g
    gives :math:`g / (1 - \gamma_t)` at every step, also under a schedule.

    `optax.trace` is this without the correction (``bias_correction=False``);
    `optax.ema` with ``debias=True`` is this times :math:`1 - \gamma`, for a constant
    decay. PyTorch's ``SGD(momentum=γ, dampening=γ)`` scales the gradients by
    :math:`1 - \gamma` but not the first one, and corrects nothing.

    *Differences from the source*: the source divides by :math:`1 - \gamma^t`, which is
    wrong when the decay varies; w is the exact generalisation.

    Args:
      decay: γ in [0, 1); a number, a 0-d array or a schedule. 0 is plain SGD.
      nesterov: whether to emit Nesterov's form, for gradients at the ordinary point.
      accumulator_dtype: real dtype of the trace; by default each parameter's. Complex
        parameters keep a complex trace. Arithmetic is in float32 or wider.
      bias_correction: whether to divide.
      initial_scale: standard deviation of a random initial trace, at least 0; None or
        0 starts it at zero. The weight does not count it.
      key: for the random initial trace, and only for it: an int, a key from
        `jax.random.key`, or the uint32 words of one.

    Returns:
      A gradient transformation. Its state is one copy of the parameters and 8 bytes.

    Raises:
      ValueError: ``decay`` is outside [0, 1), ``initial_scale`` negative, or given
        without ``key`` or the reverse; at ``update``, gradients that do not fit the
        parameters.
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
    decay = _validation.or_schedule(_validation.decay, "decay", decay)
    nesterov = _validation.flag("nesterov", nesterov)
    bias_correction = _validation.flag("bias_correction", bias_correction)
    accumulator_dtype = _validation.floating_dtype(
        "accumulator_dtype", accumulator_dtype
    )
    if initial_scale is not None:
        initial_scale = _validation.nonnegative("initial_scale", initial_scale)
    random_start = not (initial_scale is None or _validation.is_zero(initial_scale))
    if random_start != (key is not None):
        raise ValueError(
            "`key` must be given with a positive `initial_scale` and only then, got"
            f" initial_scale={initial_scale!r} and key={key!r}"
        )
    words = _random.key_words(key) if random_start else None

    def start(zeros: Any) -> Any:
        if not random_start:
            return zeros
        noise = barrier(
            _random.gaussian_like(
                jnp.asarray(words), jnp.int32(0), zeros, stream="initial_momentum"
            )
        )
        scale = jnp.asarray(initial_scale)
        return jax.tree.map(
            lambda m, z: _numerics.add_scaled(m, (scale, z)), zeros, noise
        )

    return _tracing.accumulate(
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
    accumulator_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with momentum and the learning rate inside the velocity.

    Use it as the first optimizer to try on a vision or other well-conditioned model,
    and `nesterov_lookahead` or ``nesterov=True`` for a little more damping.

    With :math:`\eta_t` = ``learning_rate`` and :math:`\gamma_t` = ``momentum``:

    .. math::

        v_t = \gamma_t v_{t-1} + \eta_t \nabla L(\theta_t), \qquad
        \theta_{t+1} = \theta_t - v_t

    so that a change of the learning rate acts on new gradients only and the velocity
    built up before keeps its size. `optax.sgd` and PyTorch keep the learning rate
    outside, :math:`m_t = \gamma m_{t-1} + \nabla L`, :math:`\theta_{t+1} = \theta_t -
    \eta_t m_t`, which ``learning_rate_inside=False`` gives. The two agree while the
    learning rate is constant. Written with the other sign, :math:`v = \gamma v - \eta
    g`, :math:`\theta \leftarrow \theta + v`, it is the same method.

    Args:
      learning_rate: :math:`\eta`, at least 0; a number, a 0-d array or a schedule.
      momentum: :math:`\gamma` in [0, 1); a number, a 0-d array or a schedule, often
        raised from 0.5 to 0.9 or 0.99 (`sutskever_momentum`). 0 is plain SGD.
      nesterov: whether to use the form of Nesterov's method that takes gradients at the
        ordinary point: :math:`\theta_{t+1} = \theta_t - \eta_t g_t - \gamma_t v_t`.
      bias_correction: whether to divide the velocity by the total weight in it, see
        `trace_with_bias_correction`.
      learning_rate_inside: whether the velocity contains the learning rate.
      accumulator_dtype: real dtype of the velocity; by default each parameter's. With
        small rates and half precision, float32 keeps what the parameter's would lose.

    Returns:
      A gradient transformation. Its trace is :math:`-v` where the rate is inside.

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
    inside = _validation.flag("learning_rate_inside", learning_rate_inside)
    trace = partial(
        _tracing.accumulate,
        _validation.or_schedule(_validation.decay, "momentum", momentum),
        nesterov=_validation.flag("nesterov", nesterov),
        bias_correction=_validation.flag("bias_correction", bias_correction),
        accumulator_dtype=_validation.floating_dtype(
            "accumulator_dtype", accumulator_dtype
        ),
    )
    if inside:
        return trace(gain=_scaling.descent(learning_rate))
    return optax.chain(trace(), _scaling.scale_by_learning_rate(learning_rate))
