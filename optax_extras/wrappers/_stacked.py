"""Stacked layers and experts, each updated as a leaf of its own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks
from optax_extras._core.inner import as_transformation
from optax_extras._core.leaves import is_none
from optax_extras._core.missing import update_without_missing
from optax_extras._core.patterns import path_text
from optax_extras._core.placement import explicit_sharding, placed_like
from optax_extras._core.slices import Slices, with_own_keys
from optax_extras._core.stacking import StackAxes


class StackedState(NamedTuple):
    """State of `stacked`."""

    inner_state: optax.OptState  # of the leaves that are not stacked
    # One for each stack, the arrays with the axes of the stack in front.
    stacks: tuple[optax.OptState, ...]


def stacked(
    inner: optax.GradientTransformation,
    axes: Mapping[str, int | Sequence[int]],
) -> optax.GradientTransformationExtraArgs:
    """Updates each slice of stacked leaves as a leaf of its own.

    Use it if the layers of a model are stacked along an axis, as for `jax.lax.scan`, or
    the experts of a layer, and the transformation treats a leaf as a whole: it takes
    its norm (`optax.lamb`, `optax.lars`, `optax.contrib.muon`, adaptive clipping),
    factors its shape (`optax.adafactor`), or looks at the number of its dimensions.
    Without `stacked`, all layers share one norm, and a stack of vectors is taken
    for a matrix. What acts on single elements, such as `optax.adam`, does not need it.

    Leaves that one pattern matches, and whose stacked axes have the same sizes, are a
    stack. ``inner`` is mapped by `jax.vmap` over the slices of each stack, and sees
    `optax.MaskedNode` in place of all other leaves. The leaves that no pattern matches
    go through ``inner`` together.

    What reduces over the whole tree, such as `optax.clip_by_global_norm`, would see the
    leaves of one layer at a time. Place it outside:
    ``optax.chain(optax.clip_by_global_norm(1.0), stacked(inner, axes))``. The same
    holds for `with_rules`, whose patterns would not find the leaves of other stacks,
    and for `record`, which would keep scalars of its own for each stack. Extra
    arguments are passed on as they are.

    Random draws differ between slices. With the transformations of this library, slice
    i of the leaf at ``layers/w`` gets the noise of a leaf at ``layers/w/i``, as in a
    list of layers. Inside `jax.shard_map`, i counts the slices of each shard.

    Args:
      inner: any transformation. Place `optax.inject_hyperparams` outside: inside, every
        slice has hyperparameters of its own.
      axes: from patterns to the axis that stacks, or to several, such as
        ``{"layers/.*": 0, "experts/.*": (0, 1)}``. A pattern is a regular expression
        that matches the whole path of a leaf, as
        ``jax.tree_util.keystr(path, simple=True, separator="/")`` writes it. The first
        pattern that matches counts. Leaves of one pattern should be sharded alike along
        these axes.

    Returns:
      A gradient transformation. Its state has the arrays of ``inner`` for each slice,
      also what ``inner`` keeps once, such as a counter. At an eager ``init``, arrays in
      the shape of a stacked parameter get its sharding.

    Raises:
      TypeError: an argument has the wrong type, or a gradient leaf is not
        floating-point or complex.
      ValueError: a pattern is no regular expression. At ``init``, a pattern chooses no
        leaf or names an axis twice, or a leaf does not have the axes. At ``update``,
        the gradients form other stacks than the parameters given to ``init``.

    Examples:
      LAMB scales the step of a leaf to the norm of its parameters. Two layers of very
      different norms each move by a tenth of their own:

      >>> import jax.numpy as jnp, optax, optax_extras
      >>> params = {"layers": jnp.array([[1.0, 1.0], [100.0, 100.0]])}
      >>> optimizer = optax_extras.stacked(optax.lamb(0.1), {"layers": 0})
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
      >>> print((updates["layers"] / params["layers"]).round(3))
      [[-0.1 -0.1]
       [-0.1 -0.1]]

    References:
      You et al. 2019, "Large Batch Optimization for Deep Learning: Training BERT in 76
      minutes", arXiv 1904.00962
    """
    inner = as_transformation("inner", inner)
    stack_axes = StackAxes.of(axes)

    def init_slice(part: optax.Params) -> optax.OptState:
        return with_own_keys(inner.init(part), jax.tree.leaves(part)[0])

    def init(params: optax.Params) -> StackedState:
        tree = _Tree.of(params)
        stacks = _stacks(stack_axes, tree.paths, tree.leaves)
        states = []
        for stack in stacks:
            states.append(stack.init(init_slice, tree.part(stack)))
        return StackedState(inner.init(tree.without(stacks)), tuple(states))

    def update(
        updates: optax.Updates,
        state: StackedState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, StackedState]:
        checks.check_updates(updates, params)
        tree = _Tree.of(updates)
        where = None if params is None else tree.like(params)
        like = tree if where is None else where
        stacks = _stacks(stack_axes, tree.paths, like.leaves)
        if len(stacks) != len(state.stacks):
            raise ValueError(
                "`updates` must form the stacks of the parameters given to `init`, got"
                f" {len(stacks)} where the state has {len(state.stacks)}"
            )

        def update_slice(part: Any, state: Any, params: Any) -> Any:
            return update_without_missing(inner, part, state, params, **extra_args)

        rest, inner_state = update_without_missing(
            inner,
            tree.without(stacks),
            state.inner_state,
            None if where is None else where.without(stacks),
            **extra_args,
        )
        found = tree.like(rest)
        states = []
        for stack, old in zip(stacks, state.stacks, strict=True):
            own_params = None if where is None else where.part(stack)
            moved, new = stack.slices.map(update_slice)(
                tree.part(stack), old, own_params
            )
            found = found.with_part(stack, tree.like(moved))
            states.append(new)
        return found.whole(), StackedState(inner_state, tuple(states))

    return optax.GradientTransformationExtraArgs(init, update)


class _Stack(NamedTuple):
    """Leaves whose slices are leaves of their own.

    Attributes:
      members: positions of the leaves.
      axes: the axes that stack them.
      sizes: their lengths.
    """

    members: frozenset[int]
    axes: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def slices(self) -> Slices:
        """The slices, whose paths are those of a list in place of each axis."""
        ends = [
            tuple(map(jax.tree_util.SequenceKey, index))
            for index in itertools.product(*map(range, self.sizes))
        ]
        return Slices(self.sizes, lambda path: [(*path, *end) for end in ends])

    def init(self, init_slice: Any, part: Any) -> Any:
        """The states of its slices."""
        return placed_like(self.slices.map(init_slice)(part), part, len(self.axes))

    def to_front(self, x: Any) -> Any:
        """The leaf with the axes in front."""
        return x if x is None else jnp.moveaxis(x, self.axes, range(len(self.axes)))

    def to_place(self, x: Any) -> Any:
        """The leaf with the axes where they were."""
        return x if x is None else jnp.moveaxis(x, range(len(self.axes)), self.axes)


class _Tree(NamedTuple):
    """A tree taken apart, in which None is a leaf."""

    treedef: Any
    paths: list[str]
    leaves: list[Any]

    @classmethod
    def of(cls, tree: Any) -> _Tree:
        flat, treedef = jax.tree.flatten_with_path(tree, is_leaf=is_none)
        paths = [path_text(path) for path, _ in flat]
        return cls(treedef, paths, [leaf for _, leaf in flat])

    def like(self, tree: Any) -> _Tree:
        """Another tree of this structure."""
        return self._replace(leaves=self.treedef.flatten_up_to(tree))

    def whole(self) -> Any:
        return self.treedef.unflatten(self.leaves)

    def part(self, stack: _Stack) -> Any:
        """The stack alone, its axes in front."""
        masked = [
            stack.to_front(x) if i in stack.members else optax.MaskedNode()
            for i, x in enumerate(self.leaves)
        ]
        return self._replace(leaves=masked).whole()

    def with_part(self, stack: _Stack, part: _Tree) -> _Tree:
        """This tree with the stack of a result."""
        leaves = [
            stack.to_place(own) if i in stack.members else x
            for i, (x, own) in enumerate(zip(self.leaves, part.leaves, strict=True))
        ]
        return self._replace(leaves=leaves)

    def without(self, stacks: Sequence[_Stack]) -> Any:
        """The leaves that are in no stack."""
        out = frozenset[int]().union(*(stack.members for stack in stacks))
        masked = [
            optax.MaskedNode() if i in out else x for i, x in enumerate(self.leaves)
        ]
        return self._replace(leaves=masked).whole()


def _stacks(
    axes: StackAxes, paths: Sequence[str], leaves: Sequence[Any]
) -> list[_Stack]:
    """The stacks among the leaves, in the order of their first ones.

    Args:
      axes: of the user.
      paths: of all leaves.
      leaves: those that tell the shapes.
    """
    members: dict[Any, list[int]] = {}
    for i, found in enumerate(axes.of_leaves(paths, leaves)):
        if found is None:
            continue
        sizes = tuple(jnp.shape(leaves[i])[axis] for axis in found.axes)
        # `jax.vmap` needs one sharding of the axes, where types tell it.
        sharding = explicit_sharding(leaves[i])
        spec = sharding and tuple(sharding.spec[axis] for axis in found.axes)
        members.setdefault((found, sizes, spec), []).append(i)
    return [
        _Stack(frozenset(found), stacked.axes, sizes)
        for (stacked, sizes, _), found in members.items()
    ]
