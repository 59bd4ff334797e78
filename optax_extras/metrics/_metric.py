"""What a metric is, and what it is given."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_extras._core import dtypes

# A scalar, or scalars by name. Of a name that ends with "/#", repeated for each axis,
# the array holds one scalar for each index along its last axes.
Values = Any


class Step:
    """A step of training, as metrics see it.

    Attributes:
      grads: the gradients that ``update`` was given.
      params: the parameters before the step; None if ``update`` was not given them.
      old_state: state of the inner transformation before the step.
      extra_args: further arguments of ``update``.
      own_axes: axes of a surrounding `jax.shard_map` along which each worker keeps a
        record of its own. Along all others, the values must agree.
    """

    def __init__(
        self,
        grads: Any,
        params: Any,
        old_state: Any,
        extra_args: Mapping[str, Any],
        own_axes: frozenset[Any],
        compute: Callable[[], tuple[Any, Any]],
    ):
        """`compute` returns the updates and the new inner state."""
        self.grads, self.params, self.old_state = grads, params, old_state
        self.extra_args, self.own_axes, self._compute = extra_args, own_axes, compute

    @functools.cached_property
    def _computed(self) -> tuple[Any, Any]:
        return self._compute()

    @property
    def updates(self) -> Any:
        """The updates of the inner transformation, computed only if this is read."""
        return self._computed[0]

    @property
    def state(self) -> Any:
        """The inner state after the step, computed only if this is read."""
        return self._computed[1]

    def by_leaf(self, tree: Any) -> list[Any]:
        """The leaves of gradients, or of updates, one for each parameter if known.

        That of a parameter without a gradient is None then.
        """
        if self.params is None:
            return jax.tree.leaves(tree)
        treedef: Any = jax.tree.structure(self.params)
        listed: list[Any] = treedef.flatten_up_to(tree)
        return listed

    def given_params(self) -> Any:
        """The parameters.

        Raises:
          ValueError: ``update`` was not given any.
        """
        if self.params is None:
            raise ValueError(
                "`params` must be given to `update`, because metrics of `record` are"
                " computed from them"
            )
        return self.params


class Metric(NamedTuple):
    """Scalars of a step, and how they are measured.

    Attributes:
      name: the name of the scalar, or what the names of the scalars start with.
      init: from the parameters and the inner state to the values before the first
        measurement, and a state. Values are a 0-d array, or a dict of them by name. The
        tree of both must not change. It must take parameters without leaves.
      measure: from a `Step` and the state to values and the next state. It must be
        traceable, because it may run inside `jax.lax.cond`.
    """

    name: str
    init: Callable[[Any, Any], tuple[Values, Any]]
    measure: Callable[[Step, Any], tuple[Values, Any]]


def stateless(
    name: str, init: Callable[[Any], Values], measure: Callable[[Step], Values]
) -> Metric:
    """A metric without a state; `init` is a function of the parameters."""
    return Metric(
        name,
        lambda params, inner_state: (init(params), ()),
        lambda step, state: (measure(step), state),
    )


def of_function(name: str, function: Callable[..., Values]) -> Metric:
    """A metric from a function of gradients, updates, parameters and inner state."""
    if name.endswith(("/*", "/#")):
        raise ValueError(
            f"the name of a metric must not end with '/*' or '/#', got {name!r}"
        )

    def init(params: Any, inner_state: Any) -> tuple[Values, Any]:
        dtype = dtypes.statistic_dtype(params)
        if not jax.tree.leaves(params):  # the function may expect some
            return unmeasured(dtype), ()
        shapes = jax.eval_shape(function, params, params, params, inner_state)

        def initial(path: Any, x: Any) -> jax.Array:
            if x.shape:
                where = jax.tree_util.keystr(path)
                raise ValueError(
                    f"metric {name!r} must return a scalar, or a dict of them by name,"
                    f" got shape {x.shape}{f' at {where}' if where else ''}"
                )
            return unmeasured(dtype if jnp.issubdtype(x.dtype, jnp.inexact) else int)

        if not _is_flat(shapes):
            raise TypeError(
                f"metric {name!r} must return a scalar, or a dict of them by name, got"
                f" {jax.tree.structure(shapes)}"
            )
        return jax.tree.map_with_path(initial, shapes), ()

    def measure(step: Step, state: Any) -> tuple[Values, Any]:
        if not jax.tree.leaves(step.grads):
            return unmeasured(dtypes.statistic_dtype(step.grads)), state
        return function(step.grads, step.updates, step.params, step.state), state

    return Metric(name, init, measure)


def _is_flat(values: Any) -> bool:
    """Whether values are one leaf, or a dict of leaves by name."""
    parts = values if isinstance(values, dict) else {"": values}
    return all(
        isinstance(name, str) and jax.tree_util.all_leaves([x])
        for name, x in parts.items()
    )


def unmeasured(dtype: Any, shape: tuple[int, ...] = ()) -> jax.Array:
    """Values before the first measurement: NaN, or −1 of an integer, int32."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return jnp.full(shape, jnp.nan, dtype)
    return jnp.full(shape, -1, jnp.int32)
