"""Parts of the parameters that are sent in turn (Streaming DiLoCo, 2501.18512)."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from optax_extras._core.leaves import is_none


def divided(params: Any, fragments: int) -> tuple[Any, ...]:
    """Parameters in fragments of about equal size, with None for leaves of the others.

    Layers, which are the leaves of one parent, go in turn to the fragment that has the
    fewest elements so far: layers of one size are dealt out like cards. A layer larger
    than an equal share is dealt out leaf by leaf.

    Raises:
      ValueError: there are fewer layers than fragments.
    """
    flat: Any = jax.tree.leaves_with_path(params, is_leaf=is_none)
    treedef: Any = jax.tree.structure(params, is_leaf=is_none)
    sizes = [0 if leaf is None else math.prod(np.shape(leaf)) for _, leaf in flat]
    layers: dict[Any, list[int]] = {}
    for i, (path, leaf) in enumerate(flat):
        if leaf is not None:
            layers.setdefault(path[:-1], []).append(i)
    units: list[list[int]] = []
    for layer in layers.values():
        large = sum(sizes[i] for i in layer) * fragments > sum(sizes)
        units += [[i] for i in layer] if large else [layer]
    # A tree without any, as of `optax.tree.map_params`, is that of all fragments.
    if 0 < len(units) < fragments:
        raise ValueError(
            f"`fragments` must be at most the {len(units)} layers of `params`, got"
            f" {fragments}"
        )
    filled = [0] * fragments
    owner = {}
    for unit in units:
        smallest = filled.index(min(filled))
        # One more for each, so that empty leaves are dealt out too.
        filled[smallest] += 1 + sum(sizes[i] for i in unit)
        owner.update(dict.fromkeys(unit, smallest))
    return tuple(
        treedef.unflatten(
            leaf if owner.get(i) == number else None for i, (_, leaf) in enumerate(flat)
        )
        for number in range(fragments)
    )


def merged(parts: Sequence[Any]) -> Any:
    """The tree that was divided."""
    return jax.tree.map(
        lambda *leaves: next((x for x in leaves if x is not None), None),
        *parts,
        is_leaf=is_none,
    )
