"""Which rule is for which leaf."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
import numpy as np

from optax_extras._core.leaves import is_none
from optax_extras._core.patterns import compile_patterns, first_matches, path_text
from optax_extras.wrappers._rule import ByPath, Rule, pairs_of


class Assigned(NamedTuple):
    """A leaf, and the rule for it."""

    path: str
    shape: tuple[int, ...]
    pattern: str | None  # that chose the rule
    rule: Rule  # whose multiplier no longer depends on the place of the leaf


class RuleSet:
    """Checked rules, which are the same however often they are used."""

    def __init__(self, rules: Any):
        """Takes a mapping or pairs."""
        self._rules = dict(pairs_of(rules))
        self._patterns = compile_patterns("rules", self._rules)
        for pattern in self._patterns:
            multiplier = self._rules[pattern.pattern].lr_multiplier
            if isinstance(multiplier, ByPath):
                multiplier.check_pattern(pattern.pattern, pattern.groups)

    def assign(
        self, tree: Any, *, require_all: bool, gradients: bool = False
    ) -> list[Assigned | None]:
        """The rule of each leaf, in the order of the leaves with None as a leaf.

        Args:
          tree: the parameters. What is no array, such as None, gets no rule.
          require_all: whether a pattern must match each of them.
          gradients: whether the tree holds gradients, of which one may be None where
            there is a parameter.

        Raises:
          ValueError: a pattern chooses no leaf, an array does not broadcast to a leaf,
            or, with `require_all`, no pattern matches a leaf.
        """
        leaves = [
            (path_text(path), leaf)
            for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=is_none)
        ]
        chosen = [
            path for path, x in leaves if _is_array(x) or (gradients and x is None)
        ]
        found = first_matches("rules", self._patterns, chosen)
        matches = dict(zip(chosen, found, strict=True))
        missing = [path for path, match in matches.items() if match is None]
        if require_all and missing:
            raise ValueError(
                "with `require_all`, a pattern of `rules` must match each leaf, but"
                f" none matches {', '.join(map(repr, missing))}"
            )
        # A leaf without a parameter has its place among the layers too.
        depths = self._depths([path for path, _ in leaves])
        return [
            self._assign(path, np.shape(leaf), matches[path], depths)
            if _is_array(leaf)
            else None
            for path, leaf in leaves
        ]

    def _assign(
        self,
        path: str,
        shape: tuple[int, ...],
        match: re.Match[str] | None,
        depths: dict[str, list[int]],
    ) -> Assigned:
        if match is None:
            return Assigned(path, shape, None, Rule())
        pattern = match.re
        rule = self._rules[pattern.pattern]
        if isinstance(rule.lr_multiplier, ByPath):
            found = match[1] if pattern.groups else None
            known = depths[pattern.pattern]
            multiplier = rule.lr_multiplier.multiplier(path, found, known, shape)
            rule = rule._replace(lr_multiplier=multiplier)
        check_shapes(f"of the rule {pattern.pattern!r}", path, shape, rule)
        return Assigned(path, shape, pattern.pattern, rule)

    def _depths(self, paths: list[str]) -> dict[str, list[int]]:
        """What the group of each pattern for depths matches, as sorted ints."""
        depths = {}
        for pattern in self._patterns:
            if isinstance(self._rules[pattern.pattern].lr_multiplier, ByPath):
                found = filter(None, map(pattern.fullmatch, paths))
                texts = {match[1] for match in found} if pattern.groups else set()
                depths[pattern.pattern] = sorted(
                    int(text) for text in texts if text and text.isdecimal()
                )
        return depths


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") or isinstance(leaf, (float, complex))


def check_shapes(which: str, path: str, shape: tuple[int, ...], rule: Rule) -> None:
    """Raises unless the arrays of a rule broadcast to a leaf."""
    for field, value in zip(rule._fields, rule, strict=True):
        if callable(value) or not np.ndim(value):
            continue
        own = np.shape(value)
        if not _broadcasts(own, shape):
            raise ValueError(
                f"`{field}` {which} must broadcast to each leaf, got shape {own} for"
                f" {shape} at {path!r}"
            )


def _broadcasts(own: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(own, shape) == shape
    except ValueError:
        return False
