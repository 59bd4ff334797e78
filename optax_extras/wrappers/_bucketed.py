"""Leaves of one shape, updated together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks
from optax_extras._core.inner import as_transformation
from optax_extras._core.leaves import is_none
from optax_extras._core.opaque import barrier
from optax_extras._core.placement import explicit_sharding, placed_like
from optax_extras._core.slices import Slices, with_own_keys

# A bucket is divided into at most so many parts, of at least so many elements. States
# have this structure: with other numbers, older checkpoints could not be restored.
_PARTS, _ELEMENTS = 4, 2**19


class BucketedState(NamedTuple):
    """State of `bucketed`."""

    # One for each part of a bucket, the arrays with an axis of its leaves in front.
    buckets: tuple[optax.OptState, ...]


def bucketed(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Updates leaves of one shape together, as one stacked leaf.

    Use it around a transformation that does much work on every leaf, such as
    `optax.contrib.muon`, if the model has many small leaves of few shapes: XLA then
    compiles and runs one program for each shape in place of one for each leaf. With 400
    leaves of 64×64 on a CPU, Muon compiles in 0.11 of the time, and a step takes 0.66
    of it (benchmarks/README.md). It does not help where single leaves are large, and
    costs memory: gradients, updates and, where ``inner`` uses them, parameters are
    copied, up to 12 temporary bytes for each float32 parameter. Around `optax.adam` it
    is rarely worth it: with many small leaves, the step is faster and compilation, on
    some versions of JAX, slower.

    Leaves of one shape and dtype, and on an explicit mesh of one sharding, form a
    bucket; one of many elements is divided into up to four. ``inner`` is mapped by
    `jax.vmap` over the leaves of each bucket, and sees a single array without a tree
    around it. What depends on the tree, such as a mask, `with_rules`, `record` or
    `optax.clip_by_global_norm`, therefore belongs outside. Extra arguments are passed
    on as they are. On a mesh with automatic axes, leaves of one shape should be sharded
    alike; otherwise XLA has to move them.

    Random draws are those without `bucketed`, for the transformations of this library:
    they depend on the path of each leaf.

    Args:
      inner: any transformation that treats every leaf alone. Place
        `optax.inject_hyperparams` outside: inside, every leaf has hyperparameters of
        its own.

    Returns:
      A gradient transformation. Its state has the arrays of ``inner`` for each leaf,
      also what ``inner`` keeps once, such as a counter. The state of a leaf with a None
      gradient stays.

    Raises:
      TypeError: ``inner`` is not a transformation, or a gradient leaf is not
        floating-point or complex.
      ValueError: at ``update``, the leaves form other buckets than the parameters given
        to ``init``. They do if gradients have other dtypes than parameters, or are
        None, and ``params`` is not given.

    Examples:
      Muon brings the singular values of each update near 1, here of three matrices:

      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> params = [jax.random.normal(key, (8, 8)) for key in keys]
      >>> optimizer = optax_extras.bucketed(optax.contrib.muon(1.0))
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
      >>> largest = jnp.stack([jnp.linalg.norm(u, 2) for u in updates])
      >>> bool(jnp.all(abs(largest - 1) < 0.2))
      True

    References:
      Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"
    """
    inner = as_transformation("inner", inner)

    def init_leaf(param: jax.Array) -> optax.OptState:
        return with_own_keys(inner.init(param), param)

    def init(params: optax.Params) -> BucketedState:
        flat = jax.tree.leaves_with_path(params)
        states = []
        for bucket in _buckets(flat):
            whole = bucket.stacked([leaf for _, leaf in flat])
            states.append(placed_like(bucket.slices.map(init_leaf)(whole), whole, 1))
        return BucketedState(tuple(states))

    def update(
        updates: optax.Updates,
        state: BucketedState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, BucketedState]:
        checks.check_updates(updates, params)
        treedef: Any
        flat, treedef = jax.tree.flatten_with_path(updates, is_leaf=is_none)
        paths, grads = [path for path, _ in flat], [leaf for _, leaf in flat]
        own = None if params is None else treedef.flatten_up_to(params)
        like = grads if own is None else own
        buckets = _buckets(list(zip(paths, like, strict=True)))
        _check_same(buckets, state)

        def update_leaf(grad: Any, state: Any, param: Any) -> Any:
            return inner.update(grad, state, param, **extra_args)

        states, moved = [], jnp.zeros(())
        for bucket, old in zip(buckets, state.buckets, strict=True):
            members = [grads[i] for i in bucket.members]
            known = [g is not None for g in members]
            # One after another, so that they share temporary memory, and stay in cache.
            whole, _ = barrier((_joined(members, like[bucket.members[0]]), moved))
            moved, new = bucket.slices.map(update_leaf)(
                whole, old, None if own is None else bucket.stacked(own)
            )
            for row, (i, g) in enumerate(zip(bucket.members, members, strict=True)):
                widened = g is not None and moved.dtype == whole.dtype
                dtype = jnp.result_type(g) if widened else moved.dtype
                grads[i] = None if g is None else moved[row].astype(dtype)
            states.append(new if all(known) else _rows(known, new, old))
        return treedef.unflatten(grads), BucketedState(tuple(states))

    return optax.GradientTransformationExtraArgs(init, update)


class _Bucket(NamedTuple):
    """Leaves of one kind: their positions, and their paths."""

    members: tuple[int, ...]
    paths: tuple[Any, ...]

    @property
    def slices(self) -> Slices:
        """The leaves, each at its own path."""
        return Slices(
            (len(self.members),), lambda end: [(*path, *end) for path in self.paths]
        )

    def stacked(self, arrays: Sequence[Any]) -> jax.Array:
        """Its leaves among some, along a first axis."""
        return jnp.stack([jnp.asarray(arrays[i]) for i in self.members])


def _buckets(flat: Sequence[tuple[Any, Any]]) -> list[_Bucket]:
    """The parts of all buckets of leaves with paths, in the order of their leaves."""
    members: dict[Any, list[int]] = {}
    for i, (_, leaf) in enumerate(flat):
        if leaf is not None:
            kind = jnp.shape(leaf), jnp.result_type(leaf), explicit_sharding(leaf)
            members.setdefault(kind, []).append(i)
    parts = []
    for (shape, _, _), found in members.items():
        number = min(_PARTS, math.ceil(len(found) * math.prod(shape) / _ELEMENTS))
        size = math.ceil(len(found) / max(number, 1))
        parts += [found[i : i + size] for i in range(0, len(found), size)]
    return [_Bucket(tuple(part), tuple(flat[i][0] for i in part)) for part in parts]


def _check_same(buckets: Sequence[_Bucket], state: BucketedState) -> None:
    """Raises unless the leaves form the buckets of a state, as far as it tells."""
    sizes = [len(bucket.members) for bucket in buckets]
    known = [
        {jnp.shape(x)[0] for x in jax.tree.leaves(own)} or None for own in state.buckets
    ]
    if len(sizes) != len(known) or any(
        own is not None and own != {size}
        for size, own in zip(sizes, known, strict=True)
    ):
        raise ValueError(
            "`updates` must form the buckets of the parameters given to `init`, got"
            f" buckets of {sizes} leaves for a state of {known}; if gradients have"
            " other dtypes than parameters, or are None, pass `params`"
        )


def _joined(grads: Sequence[Any], like: Any) -> jax.Array:
    """Gradients along a first axis, of the widest of their dtypes; zeros for None."""
    dtypes = [jnp.result_type(g) for g in grads if g is not None]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*dtypes) if dtypes else jnp.result_type(like)
    zeros = jnp.zeros_like(like, dtype)
    return jnp.stack([zeros if g is None else jnp.asarray(g, dtype) for g in grads])


def _rows(chosen: Sequence[bool], new: Any, old: Any) -> Any:
    """The chosen rows of a new state, and the others of the old one."""

    def leaf(new: jax.Array, old: jax.Array) -> jax.Array:
        shape = (len(chosen),) + (1,) * (new.ndim - 1)
        return jnp.where(jnp.array(chosen).reshape(shape), new, old)

    return jax.tree.map(leaf, new, old)
