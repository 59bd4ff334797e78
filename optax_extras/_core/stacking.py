"""Axes along which leaves are stacked, chosen by patterns."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from optax_extras._core.patterns import compile_patterns, first_matches


class Stacked(NamedTuple):
    """How a leaf is stacked."""

    pattern: str
    axes: tuple[int, ...]  # at least 0


class StackAxes(NamedTuple):
    """Patterns, and the axes of the leaves that they choose."""

    patterns: tuple[re.Pattern[str], ...]
    axes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, axes: Any) -> "StackAxes":
        """Checks the `axes` of a user: from patterns to an int, or to several."""
        if not isinstance(axes, Mapping):
            raise TypeError(f"`axes` must map patterns to axes, got {axes!r}")
        patterns = compile_patterns("axes", axes)
        return cls(patterns, {k: _ints(k, v) for k, v in axes.items()})

    def of_leaves(
        self, paths: Sequence[str], leaves: Sequence[Any]
    ) -> list[Stacked | None]:
        """How each leaf is stacked; None for those that are None, or not stacked.

        Raises:
          ValueError: a pattern chooses no leaf, or a leaf does not have its axes.
        """
        found: list[Stacked | None] = [None] * len(leaves)
        known = [i for i, leaf in enumerate(leaves) if leaf is not None]
        matches = first_matches("axes", self.patterns, [paths[i] for i in known])
        for i, match in zip(known, matches, strict=True):
            if match is not None:
                pattern = match.re.pattern
                axes = self._axes(pattern, paths[i], jnp.shape(leaves[i]))
                found[i] = Stacked(pattern, axes)
        return found

    def _axes(self, pattern: str, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        given, ndim = self.axes[pattern], len(shape)
        if not all(-ndim <= axis < ndim for axis in given):
            raise ValueError(
                f"`axes` of {pattern!r} must be axes of every leaf that it chooses, got"
                f" {given} for {path!r} of shape {shape}"
            )
        axes = tuple(axis % ndim for axis in given)
        if len(set(axes)) < len(axes):
            raise ValueError(f"`axes` of {pattern!r} must differ, got {given}")
        return axes


def _ints(pattern: str, value: Any) -> tuple[int, ...]:
    axes = tuple(value) if isinstance(value, Sequence) else (value,)
    if not axes or not all(type(axis) is int for axis in axes):
        raise TypeError(
            f"`axes` of {pattern!r} must be an int or several, got {value!r}"
        )
    return axes
