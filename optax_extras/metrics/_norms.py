"""Norms of gradients, updates and parameters: of trees, leaves and layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from optax_extras._core import checks, dtypes, leaves, patterns
from optax_extras._core.axes import varying
from optax_extras._core.norms import global_norm
from optax_extras._core.stacking import StackAxes
from optax_extras.metrics._metric import Metric, Step, stateless, unmeasured

Per = Literal["tree", "leaf", "layer"]
Axes = Mapping[str, int | tuple[int, ...]]


def grad_norm(per: Per = "tree", axes: Axes | None = None) -> Metric:
    """Norms of the gradients that enter the inner transformation.

    Args:
      per: ``"tree"`` for the norm of all leaves together; ``"leaf"`` for that of each
        leaf, named by its path; ``"layer"`` for that of each layer of the leaves that
        stack layers, and of each other leaf. The norm of a None gradient is 0.
      axes: with ``"layer"``, from regular expressions, which match whole paths, to the
        axis or the axes that stack layers: ``{"layers/.*": 0, "experts/.*": (0, 1)}``.

    Returns:
      A metric named ``grad_norm``, or with names such as ``grad_norm/layers/w/3``.

    Raises:
      ValueError: ``per`` is no such word, or ``axes`` is missing or of no use; at
        ``init``, a pattern chooses no leaf, or a leaf without that axis.
      TypeError: ``axes`` is no mapping from patterns to axes.
    """
    return _metric("grad_norm", per, axes, lambda *x: _norms(_grads, *x))


def update_norm(per: Per = "tree", axes: Axes | None = None) -> Metric:
    """Norms of the updates that leave the inner transformation.

    Args:
      per: as in `grad_norm`.
      axes: as in `grad_norm`.

    Returns:
      A metric named ``update_norm``, or with names such as ``update_norm/layers/w/3``.

    Raises:
      ValueError: as in `grad_norm`.
      TypeError: as in `grad_norm`.
    """
    return _metric("update_norm", per, axes, lambda *x: _norms(_updates, *x))


def param_norm(per: Per = "tree", axes: Axes | None = None) -> Metric:
    """Norms of the parameters before the step.

    Args:
      per: as in `grad_norm`.
      axes: as in `grad_norm`.

    Returns:
      A metric named ``param_norm``, or with names such as ``param_norm/layers/w/3``.

    Raises:
      ValueError: as in `grad_norm`; at ``update``, there are no parameters.
      TypeError: as in `grad_norm`.
    """
    return _metric("param_norm", per, axes, lambda *x: _norms(Step.given_params, *x))


def update_ratio(per: Per = "tree", axes: Axes | None = None) -> Metric:
    """Norms of the updates, divided by those of the parameters before the step.

    A ratio near 1e-3 is usual. It is 0 where the update is zero, whatever the
    parameters, and infinite where only the parameters are.

    Args:
      per: as in `grad_norm`.
      axes: as in `grad_norm`.

    Returns:
      A metric named ``update_ratio``, or with names such as
      ``update_ratio/layers/w/3``.

    Raises:
      ValueError: as in `grad_norm`; at ``update``, there are no parameters.
      TypeError: as in `grad_norm`.
    """

    def ratios(*arguments: Any) -> list[jax.Array]:
        above = _norms(_updates, *arguments)
        below = _norms(Step.given_params, *arguments)
        return [_ratio(x, y) for x, y in zip(above, below, strict=True)]

    return _metric("update_ratio", per, axes, ratios)


def _grads(step: Step) -> Any:
    return step.grads


def _updates(step: Step) -> Any:
    return step.updates


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    dtype = jnp.promote_types(above.dtype, below.dtype)
    above, below = above.astype(dtype), below.astype(dtype)
    # 0/0 would be NaN, which means that nothing was measured.
    return above / jnp.where((above == 0) & (below == 0), jnp.ones_like(below), below)


def _metric(
    name: str,
    per: Any,
    axes: Any,
    norms: Callable[[Step, Sequence[tuple[int, ...]] | None], list[jax.Array]],
) -> Metric:
    """A metric of norms, for the tree or for leaves with kept axes."""
    checks.choice("per", per, ("tree", "leaf", "layer"))
    if (per == "layer") != (axes is not None):
        raise ValueError(
            f"`axes` must be given with per='layer', and with that alone, got {axes!r}"
            f" with per={per!r}"
        )
    stack_axes = StackAxes.of({} if axes is None else axes)
    if per == "tree":
        return stateless(
            name,
            lambda params: unmeasured(dtypes.statistic_dtype(params)),
            lambda step: norms(step, None)[0],
        )

    def plan(tree: Any) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """Name, kept axes and their lengths of each leaf."""
        found = jax.tree.leaves_with_path(tree, is_leaf=leaves.is_none)
        found = [(p, x) for p, x in found if x is not None]
        paths = [patterns.path_text(path) for path, _ in found]
        arrays = [x for _, x in found]
        rows = []
        for path, x, stacked in zip(
            paths, arrays, stack_axes.of_leaves(paths, arrays), strict=True
        ):
            keep = () if stacked is None else tuple(sorted(stacked.axes))
            suffix = "/".join(filter(None, [path, *("#" for _ in keep)]))
            rows.append((suffix, keep, tuple(jnp.shape(x)[i] for i in keep)))
        if len({suffix for suffix, *_ in rows}) < len(rows):
            raise ValueError(f"the leaves must have paths of their own, got {paths}")
        return rows

    def init(params: Any) -> Any:
        dtype, rows = dtypes.statistic_dtype(params), plan(params)
        values = {suffix: unmeasured(dtype, lengths) for suffix, _, lengths in rows}
        return _plain(values) if values else unmeasured(dtype)

    def measure(step: Step) -> Any:
        # The gradients may be None where there are parameters.
        rows = plan(step.grads if step.params is None else step.params)
        if not rows:
            return norms(step, None)[0]
        found = norms(step, [keep for _, keep, _ in rows])
        return _plain({row[0]: x for row, x in zip(rows, found, strict=True)})

    return stateless(f"{name}/*", init, measure)


def _plain(values: dict[str, jax.Array]) -> Any:
    """Values by name, or the value of a tree that is a single array."""
    return values[""] if list(values) == [""] else values


def _norms(
    tree_of: Callable[[Step], Any],
    step: Step,
    keep: Sequence[tuple[int, ...]] | None,
) -> list[jax.Array]:
    """Norms of the whole tree, or of its leaves along all axes but those kept."""
    tree = tree_of(step)
    if keep is None:
        return [global_norm(tree, step.own_axes)]
    return leaf_norms(step.by_leaf(tree), keep, step.own_axes)


def leaf_norms(
    listed: Sequence[Any], keep: Sequence[tuple[int, ...]], per: Collection[Any]
) -> list[jax.Array]:
    """Norms of leaves along all axes but those kept; that of None is 0.

    Inside `jax.shard_map`, squares are summed as by `global_norm`.
    """
    totals: list[jax.Array] = []
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, (leaf, kept) in enumerate(zip(listed, keep, strict=True)):
        if leaf is None:
            totals.append(jnp.zeros((), jnp.float32))
            continue
        x = jnp.asarray(leaf)
        over = tuple(i for i in range(x.ndim) if i not in kept)
        x = x.astype(dtypes.compute_dtype(x.dtype))
        totals.append(jnp.sum(leaves.squared_magnitude(x), axis=over))
        axes = tuple(sorted(varying(leaf) - {*per}, key=str))
        groups.setdefault(axes, []).append(number)
    for axes, numbers in groups.items():
        if axes:  # one message for all leaves of a group
            for n, total in zip(
                numbers, lax.psum([totals[n] for n in numbers], axes), strict=True
            ):
                totals[n] = total
    return [jnp.sqrt(total) for total in totals]
