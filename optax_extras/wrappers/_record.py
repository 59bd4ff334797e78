"""Scalars of every step, kept in the state of the optimizer."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import AxisType

from optax_extras import metrics as library
from optax_extras._core import checks
from optax_extras._core.axes import vary_over, varying
from optax_extras._core.inner import as_transformation
from optax_extras._core.opaque import barrier
from optax_extras.metrics._metric import of_function
from optax_extras.wrappers._recorded import RecordState, Scalars, arrays_by_name

Metrics = (
    Sequence[str | library.Metric] | Mapping[str, library.Metric | Callable[..., Any]]
)

_BY_NAME: dict[str, Callable[[], library.Metric]] = {
    "grad_norm": library.grad_norm,
    "update_norm": library.update_norm,
    "param_norm": library.param_norm,
    "update_ratio": library.update_ratio,
    "first_nonfinite": library.first_nonfinite,
}


def record(
    inner: optax.GradientTransformation,
    metrics: Metrics,
    *,
    every: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps norms and other scalars of a step in the state, for `recorded` to read.

    Use it to watch a run: gradients, updates and parameters are seen together, inside
    the compiled step, and nothing goes to the host until it is asked for. The updates
    and the inner state are those of ``inner``. `optax.monitor` and `optax.snapshot` do
    not see updates and parameters together; a state of `optax.monitor` changes its
    structure at the first step, so that `jax.lax.scan` refuses it. A scalar that comes
    with the loss is simpler returned by the loss.

    At steps :math:`t` = 1, 2, … with ``every`` dividing :math:`t`, each metric is
    measured from

    - the gradients that enter ``inner``,
    - the updates that leave it,
    - the parameters before the step, and
    - the state of ``inner`` after it.

    At all other steps the values stay. Before the first measurement they are NaN, or −1
    where they are integers; `jax_debug_nans` takes that NaN for a fault. Scalars are
    float32, or float64 with float64 parameters.

    A step that does not measure costs next to nothing. One that does computes the
    updates a second time if a metric reads them: a step that kept them would round
    them, which changes the run, and take memory. Collectives in ``inner`` then run
    twice; all workers measure at the same steps. If ``inner`` is expensive, measure its
    updates rarely. Under `jax.vmap` over states, such as in a sweep, every step
    measures, whatever ``every`` is.

    Inside `jax.shard_map`, what varies over an axis counts as shards of one array,
    unless the record varies over it too, as those of workers that train apart do. Put
    `record` behind the mean of the gradients. With ``check_vma=False`` JAX does not say
    what varies, and norms are those of each worker's part.

    Args:
      inner: the transformation to record.
      metrics: what to measure: names, of ``"grad_norm"``, ``"update_norm"``,
        ``"param_norm"``, ``"update_ratio"`` and ``"first_nonfinite"``, and metrics from
        `optax_extras.metrics`; or a mapping from names to metrics and to functions of
        gradients, updates, parameters and inner state that return a scalar, or a dict
        of scalars by name.
      every: number of steps from one measurement to the next, at least 1.

    Returns:
      A gradient transformation with the updates of ``inner``. Its state is that of
      ``inner``, the scalars and 4 bytes.

    Raises:
      ValueError: a metric has an unknown name, two have one name, or ``every`` is below
        1; at ``update``, the gradients do not have the structure and shapes of the
        parameters, or a metric needs an argument that is not given.
      TypeError: an argument has the wrong type, or a leaf is not floating-point or
        complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> optimizer = optax_extras.record(
      ...     optax.sgd(0.1), ["grad_norm", "update_ratio"], every=2
      ... )
      >>> params = jnp.array([3.0, 4.0])
      >>> state = optimizer.init(params)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(params, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> {k: round(v, 3) for k, v in optax_extras.recorded(state).items()}
      {'grad_norm': 4.5, 'update_ratio': 0.1}

    References:
      optax 2023, "Metrics of gradients and updates in a chain", issues 206 and 326

      McCandlish et al. 2018, "An empirical model of large-batch training", arXiv
      1812.06162
    """
    every = checks.positive_integer("every", every)
    measured = _metrics(metrics)
    inner = as_transformation("inner", inner)

    def init(params: optax.Params) -> RecordState:
        checks.check_inexact("params", params)
        inner_state = inner.init(params)
        values, states = {}, {}
        for name, metric in measured.items():
            values[name], states[name] = metric.init(params, inner_state)
        arrays_by_name([values])  # refuses equal names
        count = jnp.zeros((), jnp.int32)
        return RecordState(Scalars(count, values, states), inner_state)

    def update(
        updates: optax.Updates,
        state: RecordState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, RecordState]:
        checks.check_updates(updates, params)
        arguments = updates, state.inner_state, params
        before = state.scalars.values, state.scalars.metric_states

        def advance(arguments: Any) -> Any:
            return inner.update(*arguments, **extra_args)

        def again() -> Any:
            # Without the barrier, XLA writes squares that metrics and `inner` share.
            new_updates, inner_state = advance(barrier(arguments))
            return _once(new_updates), inner_state

        def measure() -> Any:
            own, old_state = varying(state.scalars.count), state.inner_state
            step = library.Step(updates, params, old_state, extra_args, own, again)
            return _measured(step, measured, *before)

        count = optax.safe_increment(state.scalars.count)
        # With `every=1` it always holds, which XLA cannot see: a branch shares no
        # buffers with the step.
        due = count % every == 0 if every > 1 else count > 0
        known = lax.cond(due, measure, lambda: before)
        # What overwrites state and parameters must wait for what is read of them here,
        # or XLA copies them first.
        known, arguments = barrier((known, arguments))
        new_updates, inner_state = advance(arguments)
        return new_updates, RecordState(Scalars(count, *known), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _metrics(given: Any) -> dict[str, library.Metric]:
    """The metrics by name."""
    if isinstance(given, Mapping):
        named = list(given.items())
    elif isinstance(given, Sequence) and not isinstance(given, (str, library.Metric)):
        named = [_entry(x) for x in given]
    else:
        raise TypeError(
            "`metrics` must be a sequence of names and metrics, or a mapping from names"
            f" to metrics and functions, got {given!r}"
        )
    found: dict[str, library.Metric] = {}
    for name, metric in named:
        if not isinstance(name, str) or not name:
            raise TypeError(f"the names of `metrics` must be strings, got {name!r}")
        if name in found:
            raise ValueError(
                f"`metrics` must have different names, got {name!r} twice; a mapping"
                " gives names of your own"
            )
        if isinstance(metric, library.Metric):
            found[name] = metric
        elif callable(metric):
            found[name] = of_function(name, metric)
        else:
            raise TypeError(
                f"`metrics` must map names to metrics or functions, got {metric!r} for"
                f" {name!r}"
            )
    return found


def _entry(given: Any) -> tuple[str, library.Metric]:
    """Name and metric of an entry of a sequence."""
    if isinstance(given, library.Metric):
        return given.name, given
    if not isinstance(given, str):
        raise TypeError(
            "a sequence of `metrics` must hold names and metrics, got"
            f" {given!r}; a mapping gives a name to a function"
        )
    if given not in _BY_NAME:
        raise ValueError(
            f"the names in `metrics` must be among {', '.join(_BY_NAME)}, got"
            f" {given!r}; `optax_extras.metrics` has others, which take arguments"
        )
    return given, _BY_NAME[given]()


def _measured(
    step: library.Step,
    metrics: Mapping[str, library.Metric],
    values: Mapping[str, Any],
    states: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """New values and states of all metrics."""
    new_values, new_states = {}, {}
    for name, metric in metrics.items():
        value, state = metric.measure(step, states[name])
        new_values[name] = _like(name, value, values[name])
        new_states[name] = _like(name, state, states[name])
    return new_values, new_states


def _once(updates: Any) -> Any:
    """Updates to be reduced, behind barriers where leaves have a shape in common.

    XLA:CPU fuses a leaf into its reduction, but writes out every scalar of the inner
    transformation, broadcast, that reductions of equal shapes could share.
    """
    shapes = collections.Counter(map(jnp.shape, jax.tree.leaves(updates)))
    return jax.tree.map(
        lambda u: barrier(u) if shapes[jnp.shape(u)] > 1 else u,
        updates,
    )


def _like(name: str, new: Any, old: Any) -> Any:
    """What a metric returned, with the types that its `init` gave."""

    def shapes(tree: Any) -> Any:
        return jax.tree.map(jnp.shape, tree)

    treedefs: Any = [jax.tree.structure(tree) for tree in (new, old)]
    if shapes(new) != shapes(old) or treedefs[0] != treedefs[1]:
        raise ValueError(
            f"metric {name!r} must return what it has at `init`, {shapes(old)}, got"
            f" {shapes(new)}"
        )
    return jax.tree.map(_like_leaf, new, old)


def _like_leaf(new: Any, old: jax.Array) -> jax.Array:
    new = jnp.asarray(new).astype(old.dtype)
    where: Any = jax.typeof(old).sharding
    if AxisType.Explicit in where.mesh.axis_types and jax.typeof(new).sharding != where:
        new = jax.sharding.reshard(new, where)
    return vary_over(new, varying(old))
