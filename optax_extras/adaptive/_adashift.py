"""AdaShift: Adam whose steps are scaled by older gradients alone (Zhou et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, history, leaves, scalars, smooth, stages
from optax_extras._core.opaque import barrier
from optax_extras.adaptive import _window
from optax_extras.typing import DTypeLike, Scalar, ScalarOrSchedule

Reduction = Callable[[jax.Array], jax.Array]

_SPATIAL: dict[str, Reduction | None] = {
    "max": lambda squares: jnp.max(squares, initial=0),
    "mean": lambda squares: jnp.sum(squares) / max(squares.size, 1),
    "element": None,
}


class ScaleByAdaShiftState(NamedTuple):
    """State of `scale_by_adashift`, for a window of n gradients."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    # The last n gradients: that of update i, from 0, at place i modulo n.
    window: optax.Updates  # the parameters' shapes behind an axis of n
    # The place of the next gradient, plus n once the window is full.
    place: jax.Array  # int32[]
    # φ of these gradients' squares; None if `spatial` is "element".
    squares: Any  # float32[n] or float64[n] for each leaf
    nu: optax.Updates  # v; 0-d for each leaf or its shape; real, float32 or wider
    nu_weight: jax.Array  # 1 − ∏ β2 since the window is full; float32[] or float64[]


def scale_by_adashift(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: Scalar = 1e-10,
    *,
    window: int = 10,
    spatial: str = "max",
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Averages the last gradients, and divides by the size of those before them.

    In Adam, a large gradient also enlarges the denominator of its own step, and where
    large gradients are rare and matter, Adam may not converge. Here a gradient enters
    the denominator only when it has left the numerator. Use it where Adam fails and
    AMSGrad is too slow. It keeps ``window`` copies of the gradient, five times as much
    as Adam's state with the defaults; with ``accumulator_dtype=jnp.bfloat16`` half of
    that. By default the denominator is one number for each leaf, its largest gradient,
    so the method is SGD with momentum and a learning rate of its own for each leaf: the
    rate that suits it is larger than Adam's.

    With :math:`\beta_1` = ``b1``, :math:`\beta_2` = ``b2``, :math:`\epsilon` = ``eps``,
    n = ``window``, :math:`\varphi` = ``spatial`` and t = 1 at the first update:

    .. math::

        m_t &= \frac{\sum_{i=0}^{n-1} \beta_1^i g_{t-i}}{\sum_{i=0}^{n-1} \beta_1^i},
        \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, \varphi(g_{t-n}^2) \\
        u_t &= \frac{m_t}{\sqrt{v_t / (1 - \beta_2^{t-n})} + \epsilon}
        \quad (t > n), \qquad u_t = 0 \quad (t \le n)

    With ``spatial="element"``, the denominator is that which Adam had n steps before;
    as n grows, :math:`m_t` becomes Adam's debiased first moment.

    *Differences from the source*: with a schedule, :math:`\beta_1` is that of the step,
    and 1 − ∏ β2 over the steps from n + 1 on takes the place of
    :math:`1 - \beta_2^{t-n}`. While :math:`v_t` is 0, the update is 0, also after n
    steps: an embedding without a gradient so far would be moved by m / ε. So it is in
    the authors' code, which counts the steps of the debiasing, too, from the first
    gradient that is not zero. Here, where the gradients of a leaf, or with
    ``"element"`` of an element, begin late, its first updates are up to
    :math:`1 / \sqrt{1 - \beta_2}` times as large as others. As there,
    :math:`\varphi` is of the squares. Where a gradient is None, its place in the
    window keeps an older one.

    Args:
      b1: decay of the weights in the window, in [0, 1]; 1 is a plain mean. A number, a
        0-d array or a schedule.
      b2: second-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      eps: added to the root of the second moment, at least 0.
      window: n, at least 1; a Python int. With it grows the time of compilation, too.
      spatial: :math:`\varphi`, the ``"max"`` or the ``"mean"`` over each leaf, or
        ``"element"``, which stores one more float per parameter. Inside
        `jax.shard_map`, it covers only the shard's part of a leaf.
      accumulator_dtype: real dtype of the window; by default each parameter's. The
        average is of the gradients as they are stored, in float32.

    Returns:
      A gradient transformation. Its state is ``window`` copies of the parameters, 12
      bytes, and 4 (n + 1) for each leaf or, with ``"element"``, 4 for each parameter.
      In an eager ``init``, the window is sharded as its parameter.

    Raises:
      ValueError: a number is out of its range, or ``spatial`` is unknown; at
        ``update``, the gradients do not have the structure and shapes of the
        parameters.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax.chain(
      ...     optax_extras.scale_by_adashift(), optax.scale_by_learning_rate(0.05)
      ... )
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Zhou et al. 2018, "AdaShift: Decorrelation and Convergence of Adaptive Learning
      Rate Methods", arXiv 1810.00143
    """
    b1 = checks.decay("b1", b1, schedule=True, or_one=True)
    b2 = checks.decay("b2", b2, schedule=True)
    eps = checks.nonnegative("eps", eps)
    n = history.length("window", window)
    reduce = _SPATIAL[checks.choice("spatial", spatial, _SPATIAL)]
    accumulator_dtype = checks.floating_dtype("accumulator_dtype", accumulator_dtype)

    def init(params: optax.Params) -> ScaleByAdaShiftState:
        checks.check_inexact("params", params)
        squares, nu = None, leaves.real_zeros_like(params)
        if reduce is not None:
            nu = jax.tree.map(jnp.sum, nu)
            squares = jax.tree.map(lambda v: jnp.stack([v] * n), nu)
        return ScaleByAdaShiftState(
            count=jnp.zeros((), jnp.int32),
            window=jax.tree.map(
                lambda p: _window.empty(p, n, accumulator_dtype), params
            ),
            place=jnp.zeros((), jnp.int32),
            squares=squares,
            nu=nu,
            nu_weight=jnp.zeros((), dtypes.statistic_dtype(params)),
        )

    def update(
        updates: optax.Updates,
        state: ScaleByAdaShiftState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByAdaShiftState]:
        del params, extra_args
        checks.check_gradients(updates, _window.shapes(state.window))
        place, is_full = state.place % n, state.place >= n
        dtype = state.nu_weight.dtype
        decay = scalars.evaluate(b2, state.count, dtype)
        nu_weight = jnp.where(is_full, smooth.next_weight(decay, state.nu_weight), 0)
        weights = _window.weights(scalars.evaluate(b1, state.count, dtype), n, place)

        def leaf(g: Any, window: jax.Array, *statistics: jax.Array) -> tuple[Any, ...]:
            g = jnp.asarray(g)
            new = _remember(g, window, statistics, place, decay, reduce)
            update = _step_leaf(new[0], new[1], weights, nu_weight, eps)
            return (update.astype(g.dtype), *new)

        buffers = [state.window, state.nu]
        if reduce is not None:
            buffers.append(state.squares)
        updates, window, nu, *squares = leaves.map_with_buffers(leaf, updates, buffers)
        return updates, ScaleByAdaShiftState(
            count=optax.safe_increment(state.count),
            window=window,
            place=jnp.where(state.place + 1 < 2 * n, state.place + 1, n),
            squares=squares[0] if squares else None,
            nu=nu,
            nu_weight=nu_weight,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def adashift(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: Scalar = 1e-10,
    *,
    window: int = 10,
    spatial: str = "max",
    accumulator_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AdaShift: Adam whose steps are scaled by older gradients alone.

    A chain of `scale_by_adashift`, decoupled weight decay and the learning rate:
    :math:`\theta_{t+1} = \theta_t - \alpha (u_t + \lambda \theta_t)`. The documentation
    of `scale_by_adashift` has the equations, and says when to use the method.

    Args:
      learning_rate: :math:`\alpha`, at least 0; a number, a 0-d array or a schedule.
      b1: decay of the weights in the window, in [0, 1]; 1 is a plain mean. A number, a
        0-d array or a schedule.
      b2: second-moment decay, in [0, 1); a number, a 0-d array or a schedule.
      eps: added to the root of the second moment, at least 0.
      window: number of gradients that are kept, at least 1; a Python int. In the first
        ``window`` steps only weight decay changes parameters.
      spatial: ``"max"``, ``"mean"`` or ``"element"``.
      accumulator_dtype: real dtype of the window; by default each parameter's.
      weight_decay: :math:`\lambda`, at least 0, decoupled as in AdamW; a number, a 0-d
        array or a schedule. Unless it is 0, ``update`` needs ``params``.
      mask: which leaves have weight decay: a tree of booleans or a function of the
        parameters, as for `optax.add_decayed_weights`.

    Returns:
      A gradient transformation.

    Raises:
      ValueError: a number is out of its range, or ``spatial`` is unknown.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> def loss(params):
      ...     return jnp.sum((params - 1) ** 2)
      >>> optimizer = optax_extras.adashift(0.05)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> for _ in range(80):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Zhou et al. 2018, "AdaShift: Decorrelation and Convergence of Adaptive Learning
      Rate Methods", arXiv 1810.00143
    """
    direction = scale_by_adashift(
        b1,
        b2,
        eps,
        window=window,
        spatial=spatial,
        accumulator_dtype=accumulator_dtype,
    )
    return stages.optimizer(direction, learning_rate, weight_decay, mask)


def _remember(
    g: jax.Array,
    window: jax.Array,
    statistics: Sequence[jax.Array],
    place: jax.Array,
    decay: jax.Array,
    reduce: Reduction | None,
) -> tuple[jax.Array, ...]:
    """The next (window, nu), and squares if there is a reduction.

    The oldest gradient leaves the window, and enters nu.
    """
    nu, *squares = statistics
    decay = decay.astype(nu.dtype)
    if reduce is None:
        oldest = _window.at(window, place)
        square = leaves.squared_magnitude(oldest.astype(_compute(oldest, nu)))
    else:
        square = _window.at(squares[0], place)
        # Behind a barrier: XLA would write what two kernels share.
        own = reduce(leaves.squared_magnitude(barrier(g).astype(_compute(g, nu))))
        squares = [_window.put(squares[0], place, leaves.below_infinity(own))]
    nu = decay * nu + (1 - decay) * square
    if reduce is None:
        # Never true; XLA then reads the oldest gradient before it overwrites it.
        g = jnp.where(nu < -1, 0, g)
    return _window.put(window, place, g), nu, *squares


def _step_leaf(
    window: jax.Array,
    nu: jax.Array,
    weights: Sequence[jax.Array],
    nu_weight: jax.Array,
    eps: Any,
) -> jax.Array:
    """The update of one leaf."""
    compute = _compute(window, nu)
    nu_weight, eps = (
        scalars.scalar(x, dtypes.real_dtype(compute)) for x in (nu_weight, eps)
    )
    m = _window.mean(window, weights, compute)
    scale = smooth.root(nu / jnp.where(nu_weight > 0, nu_weight, 1)) + eps
    update: jax.Array = leaves.by_part(lambda m: jnp.where(nu == 0, 0, m / scale), m)
    return update


def _compute(x: jax.Array, nu: jax.Array) -> Any:
    return dtypes.compute_dtype(x.dtype, nu.dtype)
