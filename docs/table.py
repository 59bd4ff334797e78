"""Writes the README's table of everything public from docstrings and specs.

Run from the repository, with the `test` extra: ``python docs/table.py``. Name, summary
and papers are those of ``optax-extras list``. The state is measured on a float32 leaf,
for each row of the algorithm in `tests`.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from optax_extras.cli._catalogue import Entry, Reference, entries

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BEGIN = "<!-- written by docs/table.py -->\n"
END = "<!-- end of what docs/table.py writes -->\n"
HEADER = """\
| name | what it is | paper | state per float32 parameter |
|---|---|---|---|
"""

sys.path.insert(0, str(ROOT / "tests"))
from specs import Row, collect  # noqa: E402  # found by the line above


def table() -> str:
    """The table in Markdown."""
    return HEADER + "".join(map(_line, entries()))


def updated(text: str) -> str:
    """The README with a new table between the two comments."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md must hold {BEGIN!r} and then {END!r}")
    return before + BEGIN + "\n" + table() + "\n" + END + after


def _line(entry: Entry) -> str:
    cells = (
        f"`{entry.name}`",
        entry.summary.removesuffix("."),
        "; ".join(map(_paper, entry.references)),
        _state([row for row in collect() if row.factory is entry.function]),
    )
    return "| " + " | ".join(cells) + " |\n"


def _paper(paper: Reference) -> str:
    if paper.arxiv is None:
        return paper.citation
    return f"{paper.citation}, [{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})"


def _state(rows: list[Row]) -> str:
    """Bytes for each parameter, in all variants, beside those of an inner method."""
    slopes = {(_bytes(row, 256) - _bytes(row, 128)) // 128**2 for row in rows}
    sizes = [f"{n} B".replace("-", "−") if n else "none" for n in sorted(slopes)]
    if len(sizes) > 3:
        return f"{sizes[0]} to {sizes[-1]}"
    return " or ".join(sizes)


def _bytes(row: Row, rows: int) -> int:
    """The size of a state, on each worker, of a matrix with 128 columns."""
    leaf = jax.ShapeDtypeStruct((rows, 128), jnp.float32)
    state, inner = jax.eval_shape(row.build().init, leaf), row.inner()
    specs = PartitionSpec() if row.state_specs is None else row.state_specs(state)
    workers = jax.tree.map(
        lambda spec, part: jax.tree.map(lambda _: row.workers if spec else 1, part),
        specs,
        state,
    )
    sizes = jax.tree.map(lambda x, n: x.size * x.dtype.itemsize // n, state, workers)
    return sum(jax.tree.leaves(sizes)) - (0 if inner is None else _size(inner, leaf))


def _size(tx: optax.GradientTransformation, leaf: Any) -> int:
    """The size of the state of a transformation that another is around."""
    arrays = jax.tree.leaves(jax.eval_shape(tx.init, leaf))
    return sum(x.size * x.dtype.itemsize for x in arrays)


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
