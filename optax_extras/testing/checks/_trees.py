"""The trees that parameters come in."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_extras.testing import _compare
from optax_extras.testing._registry import check
from optax_extras.testing._subject import Subject, gradients, parameters


class Pair(NamedTuple):
    """A container with named fields."""

    first: Any
    second: Any


@jax.tree_util.register_pytree_node_class
class Node:
    """A container of the user's, whose children have no names."""

    def __init__(self, *children: Any):
        """Keeps the children."""
        self.children = children

    def tree_flatten(self) -> tuple[Any, None]:
        """Gives the children."""
        return self.children, None

    @classmethod
    def tree_unflatten(cls, auxiliary: None, children: Any) -> "Node":
        """Takes them back."""
        del auxiliary
        return cls(*children)


def _survives(subject: Subject, params: Any) -> Any:
    """Two steps on a tree keep the types of updates and state, and are finite."""
    tx = subject.make()
    state = tx.init(params)
    after = subject.advance(params, tx=tx, state=state, steps=2)
    _compare.same_types("the updates", after.updates, params)
    _compare.same_types("the state", after.state, state)
    _compare.finite("the updates", after.updates)
    return after.updates


@check()
def containers(subject: Subject) -> None:
    """Lists, tuples, named tuples and custom nodes are taken, as dictionaries are.

    Why: flax, equinox and haiku keep parameters in containers of their own.
    Source: `optax.Params`: arbitrary nests of arrays.
    Fix: use `jax.tree.map`, and neither index nor rebuild the containers.
    """
    w, b = parameters()["w"], parameters()["b"]
    _survives(subject, (w, [b], Pair(w, b), Node(w, {"x": b})))


@check()
def a_single_array(subject: Subject) -> None:
    """Parameters may be one array, without a container.

    Why: small problems and tests are written so.
    Source: optax's `test_preserve_dtype`, whose parameters are one array.
    Fix: use `jax.tree.map`, and do not ask for keys or items.
    """
    _survives(subject, parameters()["w"])


@check()
def scalar_leaf(subject: Subject) -> None:
    """A 0-d parameter beside others is taken.

    Why: temperatures, scales and gates are 0-d.
    Source: optax docs, `inject_hyperparams`, whose example has a 0-d parameter.
    Fix: do not index axes that may be missing, nor reduce over `axis=0`.
    """
    _survives(subject, {**parameters(), "s": jnp.float32(0.5)})


@check()
def zero_size_leaf(subject: Subject) -> None:
    """A parameter without elements beside others is taken, and gives no NaN.

    Why: optional heads and empty embedding tables are such.
    Source: `optax.Params`: arbitrary nests of arrays.
    Fix: do not divide by `x.size`, nor take the mean or the maximum of a leaf
    unguarded.
    """
    _survives(subject, {**parameters(), "e": jnp.zeros((0, 2))})


@check()
def empty_tree(subject: Subject) -> None:
    """Trees without leaves are taken.

    Why: `optax.masked` and `optax.partition` make them where a group is empty.
    Source: optax's `test_empty` of `masked` and of `partition`.
    Fix: give `sum`, `max` and `jnp.stack` over leaves a start for none.
    """
    for params in ({}, (), {"a": None}):
        tx = subject.make()
        updates, _ = subject.update(tx, params, tx.init(params), params)
        _compare.require(
            updates == params, f"the updates: expected {params}, got {updates}"
        )


@check()
def none_leaf_in_parameters(subject: Subject) -> None:
    """A None among the parameters is passed over.

    Why: equinox and frozen layers put None where there is nothing to train.
    Source: JAX docs, pytrees: None is a node without leaves; `optax.apply_updates`
    keeps it.
    Fix: use `jax.tree.map`, which passes None over, for parameters and state alike.
    """
    params = {**parameters(), "n": None}
    tx = subject.make()
    state = tx.init(params)
    grads = {**gradients(parameters(), 0), "n": None}
    updates, _ = subject.update(tx, grads, state, params)
    _compare.require(
        updates["n"] is None, f"the update of None: expected None, got {updates['n']}"
    )
    del updates["n"]
    _compare.equal("the updates", updates, subject.eager[0].updates, 1e-6)


@check("advice")
def none_gradient(subject: Subject) -> None:
    """A None gradient beside a real parameter gives a None update, and no error.

    Why: a parameter that a loss does not use may have no gradient, and
    `optax.apply_updates` passes a None over.
    Source: this suite (advice).
    Fix: map with `is_leaf=lambda x: x is None` and pass None through, keeping the
    leaf's state.
    """
    params = parameters()
    tx = subject.make()
    state = tx.init(params)
    for step in range(2):
        grads = {**gradients(params, step), "b": None}
        updates, after = subject.update(tx, grads, state, params)
        _compare.require(
            updates["b"] is None,
            f"the update of a None gradient: expected None, got {updates['b']}",
        )
        _compare.same_types("the state", after, state)
        _compare.finite("the updates", updates)
        state = after
