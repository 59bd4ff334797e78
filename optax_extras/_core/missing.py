"""Gradients that are None, around transformations that cannot take them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras._core.leaves import is_none


def update_without_missing(
    tx: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """Updates with zeros in place of None, which leave nothing of theirs in the state.

    Many transformations fail at a None beside a parameter. The update of a None is
    None, and the state of its leaf stays. Without `params`, nothing is replaced.
    """
    if params is None or not any(
        update is None and param is not None
        for update, param in zip(_leaves(updates), _leaves(params), strict=True)
    ):
        return tx.update(updates, state, params, **extra_args)  # type: ignore[no-any-return]
    missing = jax.tree.map(
        lambda p, u: None if p is None else u is None, params, updates, is_leaf=is_none
    )
    filled = jax.tree.map(
        lambda u, p: jnp.zeros_like(p) if u is None and p is not None else u,
        updates,
        params,
        is_leaf=is_none,
    )
    new_updates, new_state = tx.update(filled, state, params, **extra_args)
    changes = object()
    kept = optax.tree.map_params(
        tx,
        lambda old, is_missing: old if is_missing else changes,
        state,
        missing,
        transform_non_params=lambda _: changes,
    )
    return (
        jax.tree.map(
            lambda u, new: None if u is None else new,
            updates,
            new_updates,
            is_leaf=is_none,
        ),
        jax.tree.map(lambda old, new: new if old is changes else old, kept, new_state),
    )


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=is_none)
