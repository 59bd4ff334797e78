"""Comparisons of trees whose messages name the leaf, what was expected and what is."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras.testing._registry import ConformanceError

# The compiler may fuse and reorder, and methods amplify what that changes.
TOLERANCE = 1e-4


def show(path: Any) -> str:
    """A leaf's path in words."""
    return jax.tree_util.keystr(path) or "the root"


def require(condition: Any, message: str) -> None:
    """Raises `ConformanceError` unless a condition holds."""
    if not condition:
        raise ConformanceError(message)


def same_structure(what: str, actual: Any, expected: Any) -> None:
    """Holds the structures of two trees equal."""
    ours: Any = jax.tree.structure(actual)
    theirs: Any = jax.tree.structure(expected)
    if ours == theirs:
        return
    for path, _ in jax.tree.leaves_with_path(expected):
        require(path in _paths(actual), f"{what} at {show(path)}: expected a leaf")
    for path, _ in jax.tree.leaves_with_path(actual):
        require(path in _paths(expected), f"{what} at {show(path)}: expected no leaf")
    raise ConformanceError(f"{what}: expected the structure {theirs}, got {ours}")


def _pairs(expected: Any, actual: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The path and both leaves, for each leaf of two trees of one structure."""
    leaves = jax.tree.leaves(actual)
    for (path, theirs), ours in zip(
        jax.tree.leaves_with_path(expected), leaves, strict=True
    ):
        yield path, theirs, ours


def _paths(tree: Any) -> list[Any]:
    return [path for path, _ in jax.tree.leaves_with_path(tree)]


def same_types(what: str, actual: Any, expected: Any, *, weak: bool = False) -> None:
    """Holds structures, shapes and dtypes of two trees equal; weak types if asked."""
    same_structure(what, actual, expected)
    for path, theirs, ours in _pairs(expected, actual):
        wanted, got = _describe(theirs, weak), _describe(ours, weak)
        require(wanted == got, f"{what} at {show(path)}: expected {wanted}, got {got}")


def _describe(leaf: Any, weak: bool) -> str:
    if is_key(leaf):
        return f"{leaf.dtype}{list(leaf.shape)}"
    aval = jax.typeof(leaf)
    weakly = "weakly typed " if weak and aval.weak_type else ""
    return f"{weakly}{aval.dtype}{list(aval.shape)}"


def equal(what: str, actual: Any, expected: Any, rtol: float = 0.0) -> None:
    """Holds two trees equal: bit by bit, or relative to a leaf's largest number."""
    same_structure(what, actual, expected)
    for path, theirs, ours in _pairs(expected, actual):
        wanted, got = as_numpy(theirs), as_numpy(ours)
        where = f"{what} at {show(path)}"
        require(
            wanted.shape == got.shape,
            f"{where}: expected shape {wanted.shape}, got {got.shape}",
        )
        if rtol and np.issubdtype(wanted.dtype, np.inexact):
            finite = np.abs(wanted[np.isfinite(wanted)])
            scale = rtol * finite.max(initial=0.0)
            same = np.allclose(got, wanted, rtol=rtol, atol=scale, equal_nan=True)
        else:
            same = np.array_equal(got, wanted, equal_nan=wanted.dtype.kind in "fc")
        require(same, f"{where}: expected {_numbers(wanted)}, got {_numbers(got)}")


def different(what: str, actual: Any, expected: Any) -> None:
    """Holds every leaf of two trees to differ in every element."""
    for path, theirs, ours in _pairs(expected, actual):
        wanted, got = as_numpy(theirs), as_numpy(ours)
        require(
            not (wanted == got).any(),
            f"{what} at {show(path)}: expected other numbers than {_numbers(wanted)},"
            f" got {_numbers(got)}",
        )


def finite(what: str, tree: Any) -> None:
    """Holds every floating-point number of a tree finite."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            numbers = as_numpy(leaf)
            require(
                np.isfinite(numbers).all(),
                f"{what} at {show(path)}: expected finite numbers, got"
                f" {_numbers(numbers)}",
            )


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed PRNG keys."""
    dtype: Any = getattr(leaf, "dtype", np.dtype(object))
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def as_numpy(leaf: Any) -> np.ndarray[Any, Any]:
    """An array's numbers; the words of a typed key; half precision widened."""
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array.astype(np.float32) if array.dtype == jnp.bfloat16 else array


def _numbers(array: np.ndarray[Any, Any]) -> str:
    flat = array.ravel()
    shown = np.array2string(flat[:6], precision=8, separator=", ")
    return shown if flat.size <= 6 else f"{shown[:-1]}, …]"
