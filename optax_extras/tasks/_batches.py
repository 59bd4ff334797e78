"""Sources of mini-batches: shuffled arrays, also of clients, or the step."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras._core import checks

Plan = Callable[[jax.Array, jax.Array, int], Any]
# Maps a key, the first epoch of each client, int32[clients], and the number of its
# epochs to the rows of all these epochs, those of each client behind one another.
Shuffle = Callable[[jax.Array, jax.Array, np.ndarray[Any, Any]], jax.Array]


@dataclasses.dataclass(frozen=True)
class Batches:
    """Source of mini-batches as two functions that JAX can trace.

    A training loop plans many steps at once, which shuffles once, and takes one
    mini-batch per step.

    Attributes:
      plan: maps a key, a first step (int32[]) and a number of steps to one entry per
        step, such as row indices, stacked along a leading axis. The entry of a step
        depends on the key and the step alone.
      take: maps the entry of a step to its mini-batch.
      client_sizes: number of examples of each client, by which a federated mean weighs
        the clients; empty where the mini-batches are not divided among clients.
    """

    plan: Plan
    take: Callable[[Any], Any]
    client_sizes: tuple[int, ...] = ()


def minibatches(arrays: Any, batch_size: int | None) -> Batches:
    """Mini-batches of the rows of arrays, sampled without replacement.

    Each epoch has its own order and drops the last, incomplete mini-batch.

    Args:
      arrays: tree of arrays whose leading axes hold the examples.
      batch_size: examples per mini-batch; None for all of them.

    Returns:
      A source of trees like ``arrays`` with ``batch_size`` rows.

    Raises:
      ValueError: the arrays differ in length, or ``batch_size`` is not between 1 and
        the number of examples.
    """
    size = _length(arrays)
    if batch_size is None:
        return Batches(
            lambda key, start, length: jnp.tile(jnp.arange(size)[None], (length, 1)),
            _taker(arrays),
        )
    _check_size(batch_size, size)

    def shuffle(key: jax.Array, first: jax.Array, epochs: Any) -> jax.Array:
        def epoch(number: jax.Array) -> jax.Array:
            return jax.random.permutation(jax.random.fold_in(key, number), size)

        return jax.vmap(epoch)(first + jnp.arange(epochs[0])).ravel()

    return Batches(_plan([size], batch_size, shuffle), _taker(arrays))


def federated_minibatches(arrays: Any, batch_size: int, rows: Sequence[Any]) -> Batches:
    """Mini-batches of which each client gives an equal part, from examples of its own.

    With B examples per mini-batch and n clients, the rows from i·B/n to (i + 1)·B/n are
    examples of client i. Workers that divide the mini-batch, n or a divisor of n, thus
    see the examples of their own clients alone. A client samples as `minibatches` does,
    in epochs that are shorter the fewer examples it has.

    Args:
      arrays: tree of arrays whose leading axes hold the examples of all clients.
      batch_size: examples per mini-batch, a multiple of the number of clients.
      rows: indices of the examples of each client, such as `federated_split` returns.

    Returns:
      A source of trees like ``arrays`` with ``batch_size`` rows, which knows the
      ``client_sizes``.

    Raises:
      TypeError: ``batch_size`` is not an integer, or ``rows`` are not.
      ValueError: the arrays differ in length; there is no client; ``batch_size`` is
        not between 1 and the number of examples or not a multiple of the number of
        clients; ``rows`` are not indices of examples; or a client has too few of them
        for its part of a mini-batch.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from optax_extras.tasks import federated_minibatches
      >>> rows = [[0, 1], [2, 3, 4, 5]]
      >>> batches = federated_minibatches(10 * np.arange(6), 4, rows)
      >>> batches.client_sizes
      (2, 4)
      >>> plan = batches.plan(jax.random.key(0), jnp.int32(0), 3)
      >>> [sorted(batches.take(entry)[:2].tolist()) for entry in plan]
      [[0, 10], [0, 10], [0, 10]]
      >>> sorted(jax.vmap(batches.take)(plan[:2])[:, 2:].ravel().tolist())
      [20, 30, 40, 50]
    """
    size = _length(arrays)
    part = part_of_client(batch_size, len(rows), size)
    own = [_own_rows(client, x, size, part) for client, x in enumerate(rows)]
    sizes = [len(x) for x in own]
    return Batches(_plan(sizes, part, _shuffle_own(own)), _taker(arrays), tuple(sizes))


def part_of_client(batch_size: int, clients: int, size: int) -> int:
    """Examples in a mini-batch that each of some clients gives, of ``size`` in all."""
    _check_size(checks.positive_integer("batch_size", batch_size), size)
    if clients < 1 or batch_size % clients:
        raise ValueError(
            "`batch_size` must be a multiple of the number of clients, got"
            f" {batch_size} for {clients}"
        )
    return batch_size // clients


def batches_of_step(function: Callable[[jax.Array, jax.Array], Any]) -> Batches:
    """Mini-batches computed from the step.

    Args:
      function: maps a key, the same at every step, and the step (int32[]) to a
        mini-batch.
    """

    def plan(key: jax.Array, start: jax.Array, length: int) -> Any:
        steps = start + jnp.arange(length, dtype=jnp.int32)
        return jnp.broadcast_to(key, (length,)), steps

    return Batches(plan, lambda entry: function(*entry))


def _length(arrays: Any) -> int:
    """The number of examples in all arrays of a tree."""
    lengths = {len(array) for array in jax.tree.leaves(arrays)}
    if len(lengths) != 1:
        raise ValueError(
            f"`arrays` must have one number of examples, got {sorted(lengths)}"
        )
    return lengths.pop()


def _check_size(batch_size: int, size: int) -> None:
    if not 1 <= batch_size <= size:
        raise ValueError(f"`batch_size` must be in [1, {size}], got {batch_size}")


def _own_rows(client: int, rows: Any, size: int, part: int) -> np.ndarray[Any, Any]:
    """Checked row indices of a client, int32[examples of the client]."""
    own = np.asarray(rows)
    if own.ndim != 1 or len(own) < part:
        raise ValueError(
            f"`rows` must hold at least {part} indices of each client, one part of a"
            f" mini-batch, got shape {own.shape} of client {client}"
        )
    if not np.issubdtype(own.dtype, np.integer):
        raise TypeError(
            f"`rows` must be integers, got dtype {own.dtype} of client {client}"
        )
    if own.min() < 0 or own.max() >= size:
        raise ValueError(
            f"`rows` must be in [0, {size}), got {own.min()} to {own.max()} of client"
            f" {client}"
        )
    return own.astype(np.int32)


def _plan(sizes: Sequence[int], part: int, shuffle: Shuffle) -> Plan:
    """Plan of mini-batches of one part from each client, in epochs of its own.

    Args:
      sizes: number of examples of each client.
      part: examples of each client in a mini-batch.
      shuffle: orders the examples of each epoch.

    Returns:
      Plan of row indices, int32[length, clients * part].
    """
    size = np.array(sizes, np.int32)
    batches = size // part

    def plan(key: jax.Array, start: jax.Array, length: int) -> jax.Array:
        epochs = -(-length // batches) + 1
        first, skipped = jnp.divmod(start, batches)
        rows = shuffle(key, first, epochs)
        step = skipped[None] + jnp.arange(length, dtype=jnp.int32)[:, None]
        epoch, batch = jnp.divmod(step, batches[None])
        begin = np.cumsum([0, *(epochs * size)[:-1]], dtype=np.int32)
        place = begin[None] + epoch * size[None] + batch * part
        places = place[:, :, None] + np.arange(part, dtype=np.int32)[None, None]
        return rows[places.reshape(length, -1)]

    return plan


def _shuffle_own(own: Sequence[np.ndarray[Any, Any]]) -> Shuffle:
    """Shuffles the rows of each client with one random generator and one sort.

    Those of each client by itself would take seconds to compile.
    """
    sizes = np.array([len(rows) for rows in own])

    def shuffle(key: jax.Array, first: jax.Array, epochs: Any) -> jax.Array:
        client = np.repeat(np.arange(len(own)), epochs)  # of each epoch
        number = np.concatenate([np.arange(count) for count in epochs])
        epoch = np.repeat(np.arange(len(client)), sizes[client])  # of each row
        place = np.concatenate([np.arange(sizes[i]) for i in client.tolist()])
        rows = np.concatenate([own[i] for i in client.tolist()])

        def key_of_epoch(client: jax.Array, number: jax.Array) -> jax.Array:
            return jax.random.fold_in(jax.random.fold_in(key, client), number)

        def word(key: jax.Array, place: jax.Array) -> jax.Array:
            return jax.random.bits(jax.random.fold_in(key, place), dtype=jnp.uint32)

        keys = jax.vmap(key_of_epoch)(jnp.asarray(client), first[client] + number)
        words = jax.vmap(word)(keys[epoch], jnp.asarray(place))
        columns = jnp.asarray(epoch), words, jnp.asarray(rows)
        *_, shuffled = jax.lax.sort(columns, num_keys=2)
        return shuffled

    return shuffle


def _taker(arrays: Any) -> Callable[[jax.Array], Any]:
    """Function from row indices to the rows of arrays, which are copied once."""
    held = jax.tree.map(np.asarray, arrays)

    def take(indices: jax.Array) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(x)[indices], held)

    return take
