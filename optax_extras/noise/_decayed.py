"""Gradient noise of decaying variance (Neelakantan et al. 2015, arXiv 1511.06807)."""

from __future__ import annotations

from typing import Any

import jax
import optax

from optax_extras._core import checks, scalars, smooth, stages
from optax_extras.momentum import trace_with_bias_correction
from optax_extras.noise import _stage
from optax_extras.typing import AxisName, KeyLike, Scalar, ScalarOrSchedule


def _deviation(
    eta: ScalarOrSchedule, gamma: Scalar, count: jax.Array, dtype: Any
) -> jax.Array:
    """√(η / (1 + t)^γ), written so that a large power cannot overflow."""
    steps = 1 + count.astype(dtype)
    power = scalars.scalar(gamma, dtype)
    return smooth.root(scalars.evaluate(eta, count, dtype)) * steps ** (-power / 2)


@checks.requires_key
def add_decayed_noise(
    eta: ScalarOrSchedule = 0.01,
    gamma: Scalar = 0.55,
    *,
    key: KeyLike,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds Gaussian noise of variance η/(1 + t)^γ to the gradient.

    Use it if a network does not start to train: the paper uses it for very deep ones,
    and in colab/gradient_noise.ipynb a network of zeros trains with the default ``eta``
    and not without noise. To leave a poor minimum may take far more noise, and other
    methods may do it without: of 200 seeds in a shallow well there, none left with the
    default, nine in ten with ``eta=1``, and all with `optax.adam` at a learning rate of
    1.

    Do not expect better generalisation: docs/evidence.md shows none. The gradients of
    small batches are noisy already, and a model that trains well without added noise
    may gain nothing. The paper advises mini-batches of 128 or more and a learning rate
    somewhat larger than for plain SGD.

    With :math:`\eta` = ``eta``, :math:`\gamma` = ``gamma`` and t = 0 at the first
    update, every element of every leaf gets independent noise:

    .. math::

        g_t \leftarrow g_t + \mathcal{N}(0, \sigma_t^2), \qquad
        \sigma_t^2 = \frac{\eta}{(1 + t)^\gamma}

    :math:`\eta` is a *variance*. Place the noise before the learning rate; any other
    transformation may follow it. The noisy gradient is written to memory once, whatever
    follows: 4 bytes of temporary memory per float32 parameter. `noisy_sgd` fuses the
    noise into the step and needs none.

    The noise of an element is a pure function of the key, the step, the path of the
    leaf in the tree and the element's index in the whole (unsharded) leaf. It is the
    same on one device and on many, after a restart, and when other leaves are added or
    removed. It is drawn at float32 resolution for every dtype, and complex leaves get
    circular noise whose total variance is :math:`\sigma_t^2`.

    *Differences from the source*: none in the formula. `optax.add_noise` differs in
    that it draws in the gradient's dtype (128 distinct values in bfloat16), overflows
    for an integer ``gamma`` and stores the caller's own key.

    Args:
      eta: variance at t = 0, at least 0; a number, a 0-d array or a schedule. The
        paper uses 0.01, 0.3 and 1.0.
      gamma: exponent of the decay; at 0 the variance is constant, below 0 it grows.
      key: an int, a key from `jax.random.key` of any implementation, or the uint32
        words of one; ``init`` copies it into the state. A second transformation of this
        kind needs a key of its own: with one key, both draw the same numbers. With
        `optax.inject_hyperparams`, name it in ``static_args``: a change of the
        hyperparameter would have no effect after ``init``. ``update(..., key=k)`` uses
        ``k`` instead of the state's key for that step, in every stage of a chain that
        draws noise; stages of one kind then draw the same numbers. `jax.vmap` of
        ``init`` over parameters gives every member the same key; for different keys,
        make the transformation inside the mapped function and map over ``key``.
      axis_name: a mapped axis, or a tuple of them, along which the noise differs while
        the state stays the same. Use it inside `jax.shard_map`, where the index of an
        element is its index in the shard.

    Returns:
      A gradient transformation. Its state is 12 bytes, whatever the parameters.

    Raises:
      ValueError: ``eta`` is negative, ``gamma`` is not finite, or ``key`` is an array
        of several keys.
      TypeError: an argument is not a number or not a key, or a gradient leaf is not
        floating-point or complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax.chain(
      ...     optax_extras.add_decayed_noise(eta=0.01, gamma=0.55, key=0),
      ...     optax.sgd(0.1),
      ... )
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(50):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Neelakantan et al. 2015, "Adding Gradient Noise Improves Learning for Very Deep
      Networks", arXiv 1511.06807
    """
    return _noise(eta, gamma, key, axis_name)


def _noise(
    eta: ScalarOrSchedule,
    gamma: Scalar,
    key: KeyLike,
    axis_name: AxisName | None = None,
    one_use: bool = False,
) -> optax.GradientTransformationExtraArgs:
    eta = checks.nonnegative("eta", eta, schedule=True)
    gamma = checks.finite("gamma", gamma)

    def draws(count: jax.Array, dtype: Any) -> list[_stage.Draw]:
        return [_stage.Draw(_deviation(eta, gamma, count, dtype), count)]

    return _stage.add_noise(
        draws,
        stream="add_decayed_noise",
        key=key,
        axis_name=axis_name,
        one_use=one_use,
    )


@checks.requires_key
def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: ScalarOrSchedule = 0.01,
    gamma: Scalar = 0.55,
    *,
    key: KeyLike,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with gradient noise of decaying variance and optional momentum.

    A chain of `add_decayed_noise`, a momentum trace if ``momentum`` is given, and the
    learning rate. Without momentum, :math:`\theta_{t+1} = \theta_t -
    \alpha\,(\nabla L(\theta_t) + \mathcal{N}(0, \eta / (1 + t)^\gamma))`. The
    documentation of `add_decayed_noise` says when to use it.

    Args:
      learning_rate: :math:`\alpha`, at least 0; a number, a 0-d array or a schedule.
      eta: variance of the noise at t = 0.
      gamma: exponent of the decay.
      key: an int, a key, or the uint32 words of one. A second transformation of this
        kind needs a key of its own: with one key, both draw the same numbers.
      momentum: decay of the momentum trace after the noise, in [0, 1); a number, a 0-d
        array or a schedule. None omits the trace.
      nesterov: whether the trace emits Nesterov's form.

    Returns:
      A gradient transformation.

    Raises:
      ValueError: a number is out of its range, or ``nesterov`` is True without
        ``momentum``.
      TypeError: an argument is not a number or not a key.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax_extras.noisy_sgd(0.1, key=0)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(50):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Neelakantan et al. 2015, "Adding Gradient Noise Improves Learning for Very Deep
      Networks", arXiv 1511.06807
    """
    nesterov = checks.flag("nesterov", nesterov)
    if nesterov and momentum is None:
        raise ValueError("`nesterov` must be False without `momentum`, got True")
    # Nesterov's form uses the noisy gradient twice.
    transformations = [_noise(eta, gamma, key, one_use=not nesterov)]
    if momentum is not None:
        decay = checks.decay("momentum", momentum, schedule=True)
        trace = trace_with_bias_correction(decay, nesterov, bias_correction=False)
        transformations.append(trace)
    transformations.append(stages.scale_by_learning_rate(learning_rate))
    return optax.chain(*transformations)
