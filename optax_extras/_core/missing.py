"""Gradients that are None, around transformations that cannot take them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import leaves
from optax_extras._core.leaves import is_none
from optax_extras._core.paths import owner


def update_without_missing(
    tx: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """Updates with zeros in place of None, which leave nothing of theirs in the state.

    Many transformations fail at a None beside a parameter. The update of a None is
    None, and arrays of the state stay whose paths end with that of its leaf. Without
    `params`, nothing is replaced.
    """
    treedef: Any
    flat, treedef = jax.tree.flatten_with_path(updates, is_leaf=is_none)
    own = [None] * len(flat) if params is None else treedef.flatten_up_to(params)
    missing = {
        path: update is None and param is not None
        for (path, update), param in zip(flat, own, strict=True)
    }
    if not any(missing.values()):
        return tx.update(updates, state, params, **extra_args)  # type: ignore[no-any-return]
    filled = [
        jnp.zeros_like(param) if missing[path] else update
        for (path, update), param in zip(flat, own, strict=True)
    ]
    new_updates, new_state = tx.update(
        treedef.unflatten(filled), state, params, **extra_args
    )

    def kept(path: Any, old: Any, new: Any) -> Any:
        return old if owner(path, missing) else new

    return (
        leaves.map_gradients(lambda _, new: new, updates, new_updates),
        jax.tree.map_with_path(kept, state, new_state),
    )
