"""Memory that a compiled step takes beside its arguments and results."""

from collections.abc import Callable
from typing import Any

import jax
import optax


def temporary_bytes(update: Callable[..., Any], state: Any, params: Any) -> int:
    """Temporaries of a step on each device, as the compiler of the backend counts them.

    Parameters and state are donated, and stay where they are. Nothing is allocated.

    Args:
      update: from gradients, state and parameters to updates and a new state.
      state: the `jax.ShapeDtypeStruct` of the state, perhaps with shardings.
      params: those of the parameters; gradients are taken to be like them.
    """

    def step(params: Any, state: Any, grads: Any) -> list[Any]:
        updates, state = update(grads, state, params)
        # In the order of the donated arguments: XLA pairs equal shapes by position.
        return jax.tree.leaves((optax.apply_updates(params, updates), state))

    places = [x.sharding for x in jax.tree.leaves((params, state))]
    compiled = jax.jit(
        step,
        donate_argnums=(0, 1),
        out_shardings=places if any(places) else None,
    )
    analysis: Any = compiled.lower(params, state, params).compile().memory_analysis()
    return int(analysis.temp_size_in_bytes)
