"""What `optax-extras rules` loads and prints: the rule of each parameter."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import RenderableType

import optax_extras
from optax_extras import RuleTable
from optax_extras.cli._loading import made, parameters
from optax_extras.cli._text import Column, as_json, tables

# Of the columns beside the paths.
HEADINGS = ("shape", "pattern", "multiplier", "decay", "frozen until")


def table_of(params: str, rules: str, require_all: bool) -> RuleTable:
    """The table of the parameters and the rules that a user names.

    Args:
      params: where a tree of arrays or of `jax.ShapeDtypeStruct` is, or a function that
        returns one, which is only traced; perhaps with arguments.
      rules: where rules or a transformation of `with_rules` are, or a function that
        returns them.
      require_all: whether a leaf that no pattern matches is an error.

    Raises:
      ValueError: something cannot be loaded or made, or they do not fit together.
    """
    tree = parameters(params)
    found = made("RULES", rules, lambda make: make())
    table = optax_extras.describe_rules(found, tree, require_all=require_all)
    if not table:
        raise ValueError(f"PARAMS must be a tree of arrays, got {tree!r} at {params!r}")
    return table


def render(table: RuleTable, width: int) -> Iterator[RenderableType]:
    """Tables that fit side by side."""
    _, *columns = zip(*(row.texts() for row in table), strict=True)
    yield from tables(
        "path",
        [row.path or "(root)" for row in table],
        [
            Column(heading, [_broken(cell, width) for cell in cells])
            for heading, cells in zip(HEADINGS, columns, strict=True)
        ],
        width,
    )


def _broken(cell: str, width: int) -> str:
    """Lines of at most a third of the width."""
    limit = max(width // 3, 18)
    return "\n".join(cell[i : i + limit] for i in range(0, len(cell), limit))


def to_json(table: RuleTable) -> str:
    """A list of objects, one for each parameter."""
    return as_json(
        [
            {
                name: _plain(value, text)
                for name, value, text in zip(row._fields, row, row.texts(), strict=True)
            }
            for row in table
        ]
    )


def _plain(value: Any, text: str) -> Any:
    """A value of JSON; the text of a schedule and of freezing forever."""
    if callable(value) or text == "forever":
        return text
    if value is None or isinstance(value, str):
        return value
    return np.asarray(value).tolist()
