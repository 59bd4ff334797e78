"""Regular expressions that choose leaves by their paths."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax


def path_text(path: Any) -> str:
    """The path of a leaf as text, such as ``layers/0/kernel``; that of a root is ""."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def compile_patterns(
    argument: str, patterns: Iterable[Any]
) -> tuple[re.Pattern[str], ...]:
    """Compiles regular expressions, and names the argument if one is wrong."""
    compiled = []
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                f"the patterns of `{argument}` must be regular expressions (str), got"
                f" {pattern!r}"
            )
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise ValueError(
                f"the patterns of `{argument}` must be regular expressions, got"
                f" {pattern!r}: {error}"
            ) from error
    return tuple(compiled)


def first_matches(
    argument: str, patterns: Sequence[re.Pattern[str]], paths: Sequence[str]
) -> list[re.Match[str] | None]:
    """The match of the first pattern that matches each path whole, or None.

    A tree without leaves, as `optax.masked` and `optax.partition` make, has no matches.

    Raises:
      ValueError: a pattern is the first to match no path of a tree that has leaves.
    """
    found = [
        next(filter(None, (pattern.fullmatch(path) for pattern in patterns)), None)
        for path in paths
    ]
    used = {match.re for match in found if match is not None}
    for pattern in patterns if paths else ():
        if pattern in used:
            continue
        if any(pattern.fullmatch(path) for path in paths):
            why = "an earlier pattern matches each of its leaves"
        else:
            why = f"the paths are {some_of(paths)}"
        raise ValueError(
            f"every pattern of `{argument}` must match the whole path of a leaf, but"
            f" {pattern.pattern!r} chooses none: {why}"
        )
    return found


def some_of(paths: Sequence[str]) -> str:
    """The first paths, for a message."""
    return ", ".join(map(repr, paths[:5])) + (", …" if len(paths) > 5 else "")
