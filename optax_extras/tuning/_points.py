"""Points at which a method takes gradients and is evaluated, beside its parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

from optax_extras.communication import LocalUpdatesState, PerWorker, outer_params
from optax_extras.momentum import NesterovLookaheadState, nesterov_lookahead_params
from optax_extras.tuning._calls import check_takes, describe, noted

# Maps the state of the whole optimizer and the parameters to a point like these.
PointOf = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Points:
    """Functions of the optimizer's state and the parameters.

    Where one is None, the types of the states in the optimizer's state decide: a state
    of `nesterov_lookahead` asks for gradients at the look-ahead point, a state of
    `optax.contrib.schedule_free` for evaluation at the average. All other methods use
    the parameters themselves, at no cost. Where workers train apart, as with
    `local_updates`, gradients have each worker's own state and parameters, and
    evaluations the parameters that the workers agreed on last.

    Attributes:
      gradient_params: computes where gradients are taken.
      eval_params: computes where metrics are evaluated.

    Raises:
      TypeError: one is not a function of two arguments.
    """

    gradient_params: PointOf | None = None
    eval_params: PointOf | None = None

    def __post_init__(self) -> None:
        """Checks that the functions can be called."""
        for name in _KNOWN:
            function = getattr(self, name)
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"`{name}` must be a function, got {function!r}")
            check_takes(function, f"`{name}`", ("state", "parameters"))

    def of_gradient(self, state: Any, params: Any) -> Any:
        """Point at which the gradient is taken."""
        return self._point("gradient_params", state, params)

    def of_evaluation(self, state: Any, params: Any) -> Any:
        """Point at which metrics are evaluated."""
        params = outer_params(state) if trains_apart(state) else params
        return self._point("eval_params", state, params)

    def evaluated_elsewhere(self, state: Any) -> bool:
        """Whether metrics are evaluated at another point than the parameters."""
        return trains_apart(state) or self._function("eval_params", state) is not None

    def _function(self, name: str, state: Any) -> PointOf | None:
        given: PointOf | None = getattr(self, name)
        kind, known = _KNOWN[name]
        return known if given is None and _states(kind, state) else given

    def _point(self, name: str, state: Any, params: Any) -> Any:
        function = self._function(name, state)
        if function is None:
            return params
        with noted(f"`{name}`", state, params):
            point = function(state, params)
        for part in (jax.tree.structure, describe):
            if part(point) != part(params):
                raise ValueError(
                    f"`{name}` must return the structure, shapes and dtypes of the"
                    f" parameters, {describe(params)}, got {describe(point)}"
                )
        return point


def trains_apart(state: Any) -> bool:
    """Whether an optimizer has parameters of each worker, as `local_updates` does."""
    return bool(_states(LocalUpdatesState, state))


def _states(kind: type, state: Any) -> list[Any]:
    """States of a type, wherever they are in the state of the whole optimizer.

    Those of the single workers are left out: their arrays are unlike the parameters.
    """
    nodes = jax.tree.leaves(
        state, is_leaf=lambda node: isinstance(node, (kind, PerWorker))
    )
    return [node for node in nodes if isinstance(node, kind)]


def _averages(state: Any, params: Any) -> Any:
    """Averages of `optax.contrib.schedule_free`, in the parameters' dtypes."""

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    for found in _states(ScheduleFreeState, state):  # `optax.partition` has several
        own = jax.tree.map(
            lambda z, p: z if is_masked(z) else p, found.z, params, is_leaf=is_masked
        )
        params = jax.tree.map(
            lambda x, p: p if is_masked(x) else x.astype(p.dtype),
            schedule_free_eval_params(found, own),
            params,
            is_leaf=is_masked,
        )
    return params


_KNOWN: dict[str, tuple[type, PointOf]] = {
    "gradient_params": (NesterovLookaheadState, nesterov_lookahead_params),
    "eval_params": (ScheduleFreeState, _averages),
}
