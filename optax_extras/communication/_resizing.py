"""States and parameters for another number of workers."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras._core import checks
from optax_extras._core.leaves import is_none
from optax_extras._core.placement import Divided, PerWorker, is_placed
from optax_extras.communication._fragments import merged
from optax_extras.communication._local_updates import LocalUpdatesState
from optax_extras.communication._reference import is_local, local_states

S = TypeVar("S")


def resize_workers(state: S, workers: int) -> S:
    """The state for another number of workers.

    Worker j of M gets the mean of what the N workers had whose shares of the interval
    [0, 1) overlap its own, so that the mean over the workers stays, and with it the sum
    of what is yet to be sent. From N to 2N workers each is there twice; from 2N to N,
    two of them are one.

    The parameters of `worker_params` become means weighted by the workers' weights in
    the round of `local_updates`, so that what all have learned since they agreed stays
    what it counts for in the next exchange. For this, give parameters and state as one
    tree, ``(params, state)``.

    Args:
      state: the state of a transformation, or a tree with it, outside of
        `jax.shard_map`. All of it must be on this process's devices.
      workers: M, at least 1.

    Returns:
      The state, on one device; place it with `jax.device_put` and `worker_specs`.

    Raises:
      ValueError: ``workers`` is below 1.
      TypeError: ``workers`` is not an int.

    Examples:
      >>> import jax, jax.numpy as jnp, optax_extras
      >>> from optax_extras.compressors import top_k
      >>> tx = optax_extras.compressed_mean(top_k(0.1), "data", workers=8)
      >>> state = optax_extras.resize_workers(tx.init(jnp.zeros(2000)), 4)
      >>> state.residual.value.shape
      (4, 2000)
    """
    workers = checks.positive_integer("workers", workers)

    weights = [_weights(one) for one in local_states(state)]

    def plain(node: Any) -> Any:
        if isinstance(node, PerWorker):
            return PerWorker(jax.tree.map(lambda x: _shared(x, workers), node.value))
        if isinstance(node, Divided):
            value = _divided(np.asarray(node.value), int(node.rows), workers)
            return node._replace(value=jnp.asarray(value))
        return node

    def resized(node: Any) -> Any:
        if is_local(node):
            return jax.tree.map(plain, node, is_leaf=is_placed)
        structure: Any = jax.tree.structure(getattr(node, "value", None))
        for each in weights:
            if isinstance(node, PerWorker) and jax.tree.structure(each) == structure:
                return PerWorker(
                    jax.tree.map(
                        lambda x, weight: _shared(x, workers, weight), node.value, each
                    )
                )
        return plain(node)

    found: S = jax.tree.map(
        resized, state, is_leaf=lambda node: is_placed(node) or is_local(node)
    )
    return found


def _weights(state: LocalUpdatesState) -> Any:
    """The workers' weights for each parameter, which are those of its fragment."""
    weight = np.asarray(state.weight.value, np.float64)
    return merged(
        [
            jax.tree.map(
                lambda x, i=i: None if x is None else weight[:, i],
                part,
                is_leaf=is_none,
            )
            for i, part in enumerate(state.reference)
        ]
    )


def _shared(x: Any, workers: int, weight: Any = None) -> jax.Array:
    """Means of the workers whose shares overlap, (workers, ...).

    With weights, those without any count only where none of the others has one.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        words = _shared(jax.random.key_data(x), workers)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        # Counts and keys have no mean.
        return jnp.asarray(np.asarray(x)[np.arange(workers) * len(x) // workers])
    old = np.asarray(x, np.complex128 if jnp.iscomplexobj(x) else np.float64)
    ends = [np.arange(n + 1) / n for n in (len(old), workers)]
    low = np.maximum(ends[1][:-1, np.newaxis], ends[0][:-1])
    high = np.minimum(ends[1][1:, np.newaxis], ends[0][1:])
    shares = np.maximum(high - low, 0) * workers
    if weight is not None:
        weighted = shares * weight
        total = weighted.sum(axis=1, keepdims=True)
        shares = np.where(total > 0, weighted / np.where(total > 0, total, 1), shares)
    # No matrix product: 0 times what is not finite would spoil all workers.
    means = [sum(row[i] * old[i] for i in np.flatnonzero(row)) for row in shares]
    return jnp.asarray(np.stack(means), x.dtype)


def _divided(old: Any, rows: int, workers: int) -> Any:
    """The same rows in other parts, (workers, shards · rows of a part, ...)."""
    before, parts, *rest = old.shape
    own, part = (max(-(-rows // count), 1) for count in (before, workers))  # of a shard
    shards = parts // own
    by_shard = old.reshape(before, shards, -1, *rest).swapaxes(0, 1)
    kept = by_shard.reshape(shards, -1, *rest)[:, :rows]
    padded = np.zeros((shards, workers * part, *rest), old.dtype)
    padded[:, :rows] = kept
    return (
        padded.reshape(shards, workers, part, *rest)
        .swapaxes(0, 1)
        .reshape(workers, shards * part, *rest)
    )
