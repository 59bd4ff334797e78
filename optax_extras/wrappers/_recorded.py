"""Reading what `record` keeps in a state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from optax_extras._core.patterns import path_text

# At the end of a name, one for each axis of indices.
_INDEX = "/#"


class Scalars(NamedTuple):
    """What `record` has measured."""

    count: jax.Array  # type: ignore[assignment]  # updates so far; int32[]
    # From the names of metrics to scalars, or dicts of scalars, and of arrays where a
    # name ends with "/#"; float32[] or float64[], and int32[] of integers.
    values: dict[str, Any]
    metric_states: dict[str, Any]  # from the same names; () for most metrics


class RecordState(NamedTuple):
    """State of `record`.

    The counter is one level below, because `optax.tree.set` would not look for others
    in the inner state.
    """

    scalars: Scalars
    inner_state: optax.OptState


def leaf_paths(tree: Any) -> list[str]:
    """Paths of the leaves of a tree, such as ``layers/0/kernel``, in their order.

    They are what patterns are matched with, and what names of recorded scalars end in.

    Args:
      tree: parameters, for example.

    Returns:
      A path for each leaf, in the order of `jax.tree.leaves`. That of a tree which is
      a leaf is empty.

    Raises:
      ValueError: the keys of a dict in the tree cannot be sorted.

    Examples:
      >>> import jax.numpy as jnp, optax_extras
      >>> params = {"b": jnp.zeros(2), "layers": [jnp.zeros(3), jnp.zeros(3)]}
      >>> optax_extras.leaf_paths(params)
      ['b', 'layers/0', 'layers/1']
    """
    return [path_text(path) for path, _ in jax.tree.leaves_with_path(tree)]


def recorded(state: optax.OptState) -> dict[str, Any]:
    """Reads the scalars that `record` keeps in the state of an optimizer.

    The dict fits any logger. This writes it as a line of JSON, a row of a CSV file and
    points of a TensorBoard writer:

    .. code-block:: python

        scalars = optax_extras.recorded(state)
        print(json.dumps({"step": step, **scalars}), file=lines)
        table.writerow({"step": step, **scalars})  # a csv.DictWriter
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)

    NaN, the value before the first measurement, is written as ``NaN`` by `json.dumps`,
    which not every reader of JSON takes.

    Args:
      state: the state of the whole optimizer. A state of `record` is found anywhere in
        it, such as in `optax.chain`, `optax.masked`, `optax.MultiSteps` or another
        `record`; those of several are merged.

    Returns:
      Python numbers by name, fetched from the device at once. Layers have their indices
      at the end of their names. Values that are traced stay traced; where states are
      stacked by `jax.vmap` or `jax.lax.scan`, values are NumPy arrays with the axes of
      the stack.

    Raises:
      ValueError: no state of `record` is in it, or two have a scalar of one name.

    Examples:
      >>> import jax.numpy as jnp, optax, optax_extras
      >>> optimizer = optax.chain(
      ...     optax.clip_by_global_norm(1.0),
      ...     optax_extras.record(optax.sgd(0.5), ["grad_norm", "update_norm"]),
      ... )
      >>> params = {"w": jnp.array([3.0, 4.0])}
      >>> _, state = optimizer.update(params, optimizer.init(params), params)
      >>> optax_extras.recorded(state)
      {'grad_norm': 1.0, 'update_norm': 0.5}
    """
    states = list(record_states(state))
    if not states:
        raise ValueError(
            f"`state` must hold a state of `record`, got {jax.tree.structure(state)}"
        )
    found = arrays_by_name(node.scalars.values for node in states)
    known = {k: x for k, x in found.items() if not isinstance(x, jax.core.Tracer)}
    found |= jax.device_get(known)
    return {
        name: _plain(value)
        for key, array in found.items()
        for name, value in scalars_of(key, array)
    }


def record_states(state: Any) -> Iterator[RecordState]:
    """The states of `record` in a state, the outer before the inner."""

    def is_one(node: Any) -> bool:
        return isinstance(node, RecordState)

    for node in jax.tree.leaves(state, is_leaf=is_one):
        if is_one(node):
            yield node
            yield from record_states(node.inner_state)


def arrays_by_name(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Values of several records, in one dict from final names, still with "#".

    Raises:
      ValueError: a name occurs twice.
    """
    found: dict[str, Any] = {}
    for values in parts:
        for metric, value in sorted(values.items()):
            start = metric.removesuffix("/*")
            if start != metric and start in values and not isinstance(value, dict):
                continue  # a tree that is one leaf has one norm
            named = (
                {f"{start}/{name}": x for name, x in value.items()}
                if isinstance(value, dict)
                else {start: value}
            )
            for name, x in named.items():
                if name in found:
                    raise ValueError(
                        f"recorded scalars must have different names, got {name!r}"
                        " twice; a mapping of `metrics` gives names of your own, and"
                        " `record` belongs outside of `stacked` and `bucketed`"
                    )
                found[name] = x
    return found


def scalars_of(name: str, array: Any) -> Iterator[tuple[str, Any]]:
    """The scalars of an array, with indices in place of "#"."""
    start, marks = re.fullmatch(rf"(.*?)((?:{_INDEX})*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    count = len(marks) // len(_INDEX)
    for index in np.ndindex(array.shape[array.ndim - count :]):
        yield "/".join([start, *map(str, index)]), array[(..., *index)]


def _plain(value: Any) -> Any:
    """A Python number, if it is a known scalar."""
    is_known = isinstance(value, np.ndarray | np.generic) and not np.ndim(value)
    return value.item() if is_known else value
