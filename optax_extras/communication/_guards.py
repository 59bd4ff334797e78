"""What can be wrong with a call inside `jax.shard_map`, said in words."""

from collections.abc import Iterable
from typing import Any

import jax
from jax import lax

from optax_extras._core.axes import is_bound, names_of, varying
from optax_extras.typing import AxisName


def check_axis(argument: str, axis_name: AxisName, workers: int | None) -> None:
    """Raises unless the axis is bound, and has so many workers."""
    if not is_bound(axis_name):
        raise ValueError(
            f"`{argument}` must name an axis of the `jax.shard_map` that `update` is"
            f" called in, got {axis_name!r}"
        )
    size = lax.axis_size(axis_name)
    if workers not in (None, size):
        raise ValueError(
            f"`workers` must be the size of the axis {axis_name!r}, which is {size},"
            f" got {workers}"
        )


def check_local(leaves: Iterable[tuple[Any, Any]], axis_name: AxisName) -> None:
    """Raises if a gradient is the same on all workers; leaves are (path, array)."""
    for name in names_of(axis_name):
        if name not in varying(lax.axis_index(name)):
            return  # `check_vma=False`: nothing is known
        for path, leaf in leaves:
            if leaf is not None and name not in varying(leaf):
                raise ValueError(
                    "`updates` must be the gradients of each worker, but those at"
                    f" {jax.tree_util.keystr(path) or 'the root'} are the same along"
                    f" {name!r}: JAX has summed them already. Take them with"
                    " `optax_extras.local_value_and_grad`, which makes the parameters"
                    " vary first (`jax.lax.pcast`)"
                )


def check_same(params: Any, axis_name: AxisName) -> None:
    """Raises if parameters differ between workers."""
    for path, leaf in jax.tree.leaves_with_path(params):
        if set(names_of(axis_name)) & varying(leaf):
            raise ValueError(
                f"`params` must be the same on all workers along {axis_name!r}, but"
                f" differ at {jax.tree_util.keystr(path) or 'the root'}: give"
                " `jax.shard_map` a spec without that axis for them"
            )
