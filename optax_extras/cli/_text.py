"""Text for a terminal of any width: no number is cut or hidden."""

import itertools
import json
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


class Column(NamedTuple):
    """A column of numbers."""

    heading: str
    cells: list[str]


def number(value: float, otherwise: str = "none") -> str:
    """Three digits; `otherwise` if it is not finite."""
    return f"{value:.3g}" if math.isfinite(value) else otherwise


def tables(
    heading: str, names: Sequence[str], columns: Sequence[Column], width: int
) -> Iterator[Table]:
    """Tables of as many columns as fit side by side, each with the names before them.

    Names are broken over lines; numbers and the words of headings are not.
    """
    names = [_folded(name, width) for name in names]
    rest = list(columns)
    while rest:
        count = len(rest)
        while count > 1 and _width(_table(heading, names, rest[:count])) > width:
            count -= 1
        yield _table(heading, names, rest[:count])
        rest = rest[count:]


def _table(heading: str, names: Sequence[str], columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(heading, no_wrap=True)
    for column in columns:
        words = column.heading.split()
        longest = max(map(len, [*words, *column.cells]))
        # Lines of whole words, which `no_wrap` keeps.
        heading_lines = Text(textwrap.fill(column.heading, longest))
        table.add_column(heading_lines, justify="right", no_wrap=True)
    for name, *cells in zip(names, *(column.cells for column in columns), strict=True):
        table.add_row(Text(name), *map(Text, cells))
    return table


def _width(table: Table) -> int:
    return Console(width=10_000).measure(table).maximum


def _folded(name: str, width: int) -> str:
    """Lines of a third of the width, broken before an argument or after a slash."""
    limit = max(width // 3, 18)
    parts = re.findall(r"[^:(,/]+[:(,/]* *|[:(,/]+ *", name)
    lines = [""]
    for part in itertools.chain(*(textwrap.wrap(p, width // 2) for p in parts)):
        if lines[-1] and len(lines[-1]) + len(part) > limit:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def paragraph(text: str | Text, indent: int = 0) -> Padding:
    """Text that is broken between words; brackets in it are no markup."""
    text = Text(text) if isinstance(text, str) else text
    return Padding(text, (0, 0, 0, indent), expand=False)


def as_json(found: Any) -> str:
    """JSON, with null for numbers that are not finite."""
    return json.dumps(_without_infinities(found), indent=2)


def _without_infinities(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _without_infinities(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_without_infinities(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
