"""Langevin dynamics: SGLD (Welling & Teh 2011) and pSGLD (Li et al. 2016)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars, smooth, stages
from optax_extras.noise import _stage
from optax_extras.typing import AxisName, KeyLike, Scalar, ScalarOrSchedule


class PSGLDState(NamedTuple):
    """State of `psgld`."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    key: jax.Array  # words of the user's key, the same at every step; uint32[2]
    nu: optax.Updates  # V; the parameters' shapes, real, float32 or wider


@checks.requires_key
def add_langevin_noise(
    learning_rate: ScalarOrSchedule,
    temperature: ScalarOrSchedule = 1.0,
    *,
    key: KeyLike,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the noise that turns a gradient step into a step of Langevin dynamics.

    Use it to draw samples, for example from a Bayesian posterior, and not to minimise a
    loss: the parameters do not converge to a minimum of the loss f. For a small
    learning rate h their distribution has a density proportional to
    :math:`\exp(-f(\theta)/T)`.

    **Place it last in a chain, after the learning rate**, and pass the same rate to it;
    `sgld` is that chain. With h = ``learning_rate`` and T = ``temperature``,

    .. math::

        \Delta_t \leftarrow \Delta_t + \sqrt{2 h T}\, \xi_t, \qquad
        \xi_t \sim \mathcal{N}(0, 1)

    **Temperature.** The temperature that samples the posterior depends on the loss f
    whose gradient enters the chain:

    - T = 1/N if f is the *mean* negative log-likelihood of N examples plus the negative
      log-prior divided by N.
    - T = 1 if f is the *sum* of the negative log-likelihoods plus the negative
      log-prior. The same h then moves the parameters N times as far.
    - T = 0 gives plain descent. A temperature between 0 and the posterior's samples a
      "cold posterior".

    The step size of Welling and Teh is :math:`\epsilon_t = 2h`, for the sum.

    **Accuracy.** A step of size h causes an error of order h in the density of the
    samples: along a direction of curvature a their variance is
    :math:`(T/a) / (1 - ha/2)` instead of T/a. The noise of mini-batch gradients adds
    :math:`h^2` times its variance in each step. Lower h over time, or keep it small and
    check that the result does not change when you halve it.

    Noise is a pure function of key, step, path and element, as in `add_decayed_noise`.
    The real and the imaginary part of a complex leaf are two parameters, each with
    noise of variance 2hT.

    *Differences from the source*: none in the formula.

    Args:
      learning_rate: h, at least 0, as in the stage before; a number, a 0-d array or a
        schedule.
      temperature: T, at least 0; a number, a 0-d array or a schedule.
      key: an int, a key, or the uint32 words of one, as in `add_decayed_noise`. One key
        gives one Markov chain; for several chains, use `jax.vmap` over keys. A second
        transformation of this kind needs a key of its own: with one key, both draw the
        same numbers.
      axis_name: a mapped axis, or a tuple of them, along which the noise differs, as in
        `add_decayed_noise`.

    Returns:
      A gradient transformation. Its state is 12 bytes, whatever the parameters.

    Raises:
      ValueError: a number is negative or not finite, or ``key`` is an array of several
        keys.
      TypeError: an argument is not a number or not a key, or an update's leaf is not
        floating-point or complex.

    Examples:
      For f = 2θ² the density exp(−f) is a Gaussian of variance 1/4.

      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> optimizer = optax.chain(
      ...     optax.sgd(0.01),
      ...     optax_extras.add_langevin_noise(0.01, temperature=1.0, key=0),
      ... )
      >>> theta = jnp.full(1000, 3.0)
      >>> state = optimizer.init(theta)
      >>> update = jax.jit(optimizer.update)
      >>> for _ in range(200):
      ...     updates, state = update(4 * theta, state)
      ...     theta = optax.apply_updates(theta, updates)
      >>> bool(0.22 < jnp.var(theta) < 0.28)
      True

    References:
      Welling & Teh 2011, "Bayesian Learning via Stochastic Gradient Langevin Dynamics",
      ICML
    """
    return _noise(learning_rate, temperature, key, axis_name)


def _noise(
    learning_rate: ScalarOrSchedule,
    temperature: ScalarOrSchedule,
    key: KeyLike,
    axis_name: AxisName | None = None,
    one_use: bool = False,
) -> optax.GradientTransformationExtraArgs:
    learning_rate = checks.nonnegative("learning_rate", learning_rate, schedule=True)
    temperature = checks.nonnegative("temperature", temperature, schedule=True)

    def draws(count: jax.Array, dtype: Any) -> list[_stage.Draw]:
        h = scalars.evaluate(learning_rate, count, dtype)
        t = scalars.evaluate(temperature, count, dtype)
        return [_stage.Draw(smooth.root(2 * h * t), count)]

    return _stage.add_noise(
        draws,
        stream="add_langevin_noise",
        key=key,
        axis_name=axis_name,
        complex_gain=math.sqrt(2),
        one_use=one_use,
    )


@checks.requires_key
def sgld(
    learning_rate: ScalarOrSchedule,
    temperature: ScalarOrSchedule = 1.0,
    *,
    key: KeyLike,
) -> optax.GradientTransformationExtraArgs:
    r"""Stochastic gradient Langevin dynamics: SGD that samples exp(−f/T).

    A chain of the learning rate and `add_langevin_noise`: :math:`\theta_{t+1} =
    \theta_t - h\,\nabla f(\theta_t) + \sqrt{2 h T}\, \xi_t`. **To sample the posterior,
    set** ``temperature`` **to 1/N for a mean loss over N examples and to 1 for a summed
    loss.** The documentation of `add_langevin_noise` explains this, and the error of a
    finite h.

    Args:
      learning_rate: h, at least 0; a number, a 0-d array or a schedule.
      temperature: T, at least 0; a number, a 0-d array or a schedule.
      key: an int, a key, or the uint32 words of one. A second transformation of this
        kind needs a key of its own: with one key, both draw the same numbers.

    Returns:
      A gradient transformation.

    Raises:
      ValueError: a number is negative or not finite.
      TypeError: an argument is not a number or not a key.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> optimizer = optax_extras.sgld(0.01, key=0)
      >>> theta = jnp.full(1000, 3.0)
      >>> state = optimizer.init(theta)
      >>> update = jax.jit(optimizer.update)
      >>> for _ in range(200):
      ...     updates, state = update(4 * theta, state)  # f = 2θ², of variance 1/4
      ...     theta = optax.apply_updates(theta, updates)
      >>> bool(0.22 < jnp.var(theta) < 0.28)
      True

    References:
      Welling & Teh 2011, "Bayesian Learning via Stochastic Gradient Langevin Dynamics",
      ICML
    """
    return optax.chain(
        stages.scale_by_learning_rate(learning_rate),
        _noise(learning_rate, temperature, key, one_use=True),
    )


def _scaled_by_root(x: Any, nu: jax.Array, eps: Scalar) -> jax.Array:
    """√G·x for G = 1 / (eps + √nu), in float32 or wider."""
    compute = dtypes.compute_dtype(jnp.result_type(x), nu.dtype)
    real = dtypes.real_dtype(compute)
    root = jax.lax.rsqrt(scalars.scalar(eps, real) + smooth.root(nu.astype(real)))
    scaled: jax.Array = leaves.by_part(
        lambda x: root * x, jnp.asarray(x).astype(compute)
    )
    return scaled


@checks.requires_key
def psgld(
    learning_rate: ScalarOrSchedule,
    temperature: ScalarOrSchedule = 1.0,
    decay: ScalarOrSchedule = 0.99,
    eps: Scalar = 1e-5,
    *,
    key: KeyLike,
) -> optax.GradientTransformationExtraArgs:
    r"""Preconditioned SGLD: Langevin dynamics with RMSProp's per-element scale.

    Use it if the curvature differs much between parameters: the largest curvature
    limits the step of `sgld`. With h = ``learning_rate``, T = ``temperature``,
    :math:`\alpha` = ``decay``, :math:`\lambda` = ``eps`` and :math:`V_0 = 0`,

    .. math::

        V_t &= \alpha V_{t-1} + (1 - \alpha)\, g_t^2, \qquad
        G_t = \frac{1}{\lambda + \sqrt{V_t}} \\
        \theta_{t+1} &= \theta_t - h\, G_t\, g_t + \sqrt{2 h T G_t}\, \xi_t

    The method is `sgld` in coordinates scaled by :math:`\sqrt{G_t}`, so the convention
    for the temperature is the same: **1/N for a mean loss over N examples, 1 for a
    summed loss**. h has the unit of the parameters and does not depend on the scale of
    the loss, so the same h suits both losses. ``eps`` has the unit of the gradient.

    **Accuracy.** While G changes with :math:`\theta`, the samples are biased: the exact
    dynamics have one more term, the derivative of G, which the authors omit in practice
    and which is omitted here. The bias is large if the chain moves slowly compared with
    the memory of V: with the default ``decay`` and h = 0.01, samples of a standard
    Gaussian have a variance of 1.3. A ``decay`` schedule that becomes 1 after burn-in
    freezes G and ends the bias: ``decay=lambda t: jnp.where(t < 1000, 0.99, 1.0)``. The
    error of `sgld` for a finite h remains.

    An element whose gradient has been 0 from the start has G = 1/``eps`` and noise of
    standard deviation :math:`\sqrt{2hT/\lambda}`. Give such parameters a prior (weight
    decay in the loss) and an initial value away from its centre, or use a larger
    ``eps``.

    *Differences from the source*: V averages the squares of the gradient that
    ``update`` receives. The source always uses the gradient of the mean loss, for which
    its step :math:`\epsilon_t` is 2h/N. For a complex gradient, V averages the squared
    magnitude.

    Args:
      learning_rate: h, at least 0; a number, a 0-d array or a schedule.
      temperature: T, at least 0; a number, a 0-d array or a schedule.
      decay: :math:`\alpha`, in [0, 1); a number, a 0-d array or a schedule, whose
        values may reach 1.
      eps: :math:`\lambda`, above 0.
      key: an int, a key, or the uint32 words of one. A second transformation of this
        kind needs a key of its own: with one key, both draw the same numbers.

    Returns:
      A gradient transformation whose state is 4 bytes per float32 parameter.

    Raises:
      ValueError: a number is out of its range, or the updates do not have the structure
        of the parameters.
      TypeError: an argument is not a number or not a key, or a gradient leaf is not
        floating-point or complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> curvature = jnp.repeat(jnp.array([1.0, 100.0]), 1000)
      >>> optimizer = optax_extras.psgld(
      ...     0.01, decay=lambda t: jnp.where(t < 300, 0.99, 1.0), key=0
      ... )
      >>> theta = jnp.ones(2000)
      >>> state = optimizer.init(theta)
      >>> update = jax.jit(optimizer.update)
      >>> for _ in range(1000):
      ...     updates, state = update(curvature * theta, state)
      ...     theta = optax.apply_updates(theta, updates)
      >>> variances = curvature[::1000] * jnp.var(theta.reshape(2, -1), axis=1)
      >>> bool((abs(variances - 1) < 0.2).all())
      True

    References:
      Li et al. 2016, "Preconditioned Stochastic Gradient Langevin Dynamics for Deep
      Neural Networks", arXiv 1512.07666
    """
    decay = checks.decay("decay", decay, schedule=True)
    eps = checks.positive("eps", eps)
    factor = stages.descent(learning_rate)
    noise = _noise(learning_rate, temperature, key, one_use=True)

    def init(params: optax.Params) -> PSGLDState:
        checks.check_inexact("params", params)
        count, words = noise.init(params)
        return PSGLDState(count, words, nu=leaves.real_zeros_like(params))

    def update(
        updates: optax.Updates,
        state: PSGLDState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PSGLDState]:
        checks.check_gradients(updates, state.nu)
        dtype = dtypes.statistic_dtype(updates)
        alpha = scalars.evaluate(decay, state.count, dtype)

        def stretch(g: Any, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
            compute = dtypes.compute_dtype(jnp.result_type(g), nu.dtype)
            real = dtypes.real_dtype(compute)
            a = alpha.astype(real)
            square = leaves.squared_magnitude(jnp.asarray(g).astype(compute))
            nu_next = (a * nu.astype(real) + (1 - a) * square).astype(nu.dtype)
            return _scaled_by_root(g, nu_next, eps), nu_next

        stretched, nu = leaves.map_with_buffers(stretch, updates, [state.nu])
        scale = scalars.evaluate(factor, state.count, dtype)
        descent = jax.tree.map(lambda g: leaves.scaled(g, scale), stretched)
        step, (count, _) = noise.update(
            descent, _stage.AddNoiseState(state.count, state.key), params, **extra_args
        )
        back = leaves.map_gradients(
            lambda g, u, nu: _scaled_by_root(u, nu, eps).astype(jnp.result_type(g)),
            updates,
            step,
            nu,
        )
        return back, PSGLDState(count, state.key, nu)

    return optax.GradientTransformationExtraArgs(init, update)
