"""The step of a worker by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optax_extras._core.axes import vary_over, varying
from optax_extras._core.leaves import map_gradients
from optax_extras._core.placement import PerWorker
from optax_extras.communication._parameters import as_own, own_params


def own_step(
    update: Callable[..., Any],
    takes_part: jax.Array,
    grads: Any,
    state: Any,
    params: Any,
) -> tuple[Any, Any]:
    """Updates and state of a worker that takes part; else zeros and the old state.

    Args:
      update: of an optimizer, which is not called with the workers' axis.
      takes_part: whether this worker does; bool[].
      grads: with the workers' axis in front, as all trees here.
      state: of the optimizer.
      params: the parameters.

    Returns:
      Updates in the dtypes of the parameters, and a state in its own dtypes.
    """

    def idle(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        zeros = map_gradients(
            lambda g, p: jnp.zeros_like(g, dtype=p.dtype), grads, params
        )
        return zeros, state

    def trained(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        plain = (own_params(PerWorker(tree)) for tree in (grads, state, params))
        updates, new = (as_own(tree).value for tree in update(*plain))
        zeros, _ = idle(grads, state, params)
        return _similar(updates, zeros), _similar(new, state)

    # A branch, because XLA would copy buffers of which a select keeps one.
    found: tuple[Any, Any] = lax.cond(takes_part, trained, idle, grads, state, params)
    return found


def _similar(tree: Any, like: Any) -> Any:
    """A tree whose arrays have the dtypes of others, and vary over the same axes."""
    return jax.tree.map(
        lambda x, y: vary_over(x.astype(y.dtype), varying(y)), tree, like
    )
