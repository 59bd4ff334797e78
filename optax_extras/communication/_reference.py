"""What workers that train alone have agreed on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras._core.leaves import is_none
from optax_extras._core.placement import PerWorker
from optax_extras.communication._fragments import merged
from optax_extras.communication._local_updates import LocalUpdatesState


def outer_params(state: Any) -> Any:
    """The parameters that all workers agreed on last, to evaluate and to save.

    Args:
      state: of `local_updates` or of a chain with it, inside or outside of
        `jax.shard_map`.

    Returns:
      Plain parameters. They are arrays of the state: copy them to keep them beyond a
      step that donates it.

    Raises:
      ValueError: no part of the state is of `local_updates`, or several are.

    Examples:
      >>> import jax.numpy as jnp, optax, optax_extras
      >>> tx = optax_extras.diloco(optax.sgd(0.1), axis_name="data", workers=2)
      >>> state = tx.init({"w": jnp.ones(3)})
      >>> optax_extras.outer_params(state)["w"].tolist()
      [1.0, 1.0, 1.0]
    """
    return merged(_state_in(state).reference)


def apply_local_updates(params: Any, updates: Any, state: Any) -> Any:
    """Adds updates so that workers are equal bit for bit after an exchange.

    The update of a step with an exchange leads from a worker's parameters to the new
    reference. But the sum of two floats is rounded, so that `optax.apply_updates` would
    miss it by a rounding error that differs between workers. Here, parameters that were
    exchanged are set to the reference, and the updates are added to all others.

    Args:
      params: the parameters before the step, as given to ``update``.
      updates: what ``update`` returned; a leaf whose update is None stays.
      state: the new state, of `local_updates` or of a chain with it.

    Returns:
      The parameters after the step.

    Raises:
      ValueError: no part of the state is of `local_updates`, or several are.

    Examples:
      >>> import jax.numpy as jnp, optax, optax_extras
      >>> tx = optax_extras.diloco(optax.sgd(0.1), axis_name="data", workers=2)
      >>> state = tx.init(jnp.ones(3))
      >>> new = optax_extras.apply_local_updates(jnp.ones(3), jnp.ones(3), state)
      >>> new.tolist()  # before any exchange
      [2.0, 2.0, 2.0]
    """
    local = _state_in(state)
    moved = jax.tree.map(
        lambda u, p: p if u is None else optax.apply_updates(p, u),
        updates,
        params,
        is_leaf=is_none,
    )
    if isinstance(params, PerWorker):
        return PerWorker(_set(moved.value, local, in_front=True))
    return _set(moved, local, in_front=False)


def _set(params: Any, state: LocalUpdatesState, *, in_front: bool) -> Any:
    """Parameters, of which those that were exchanged are the reference."""
    treedef: Any = jax.tree.structure(params, is_leaf=is_none)
    leaves = jax.tree.leaves(params, is_leaf=is_none)
    for adopted, part in zip(state.adopted, state.reference, strict=True):
        for i, new in enumerate(treedef.flatten_up_to(part)):
            if new is not None:
                new = new[jnp.newaxis] if in_front else new
                leaves[i] = jnp.where(adopted, new, leaves[i])
    return treedef.unflatten(leaves)


def _state_in(state: Any) -> LocalUpdatesState:
    """The part of a state that is of `local_updates`."""
    found = local_states(state)
    if len(found) != 1:
        raise ValueError(
            f"`state` must have one part that is of `local_updates`, got {len(found)}"
            f" in a {type(state).__name__}"
        )
    return found[0]


def local_states(state: Any) -> list[LocalUpdatesState]:
    """All parts of a state that are of `local_updates`."""
    return [x for x in jax.tree.leaves(state, is_leaf=is_local) if is_local(x)]


def is_local(node: Any) -> bool:
    """Whether a node is the state of `local_updates`; an `is_leaf`."""
    return isinstance(node, LocalUpdatesState)
