"""The README's table, which is written by a command."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "docs" / "table.py"
if not SOURCE.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)


@pytest.fixture(scope="module")
def table():
    """The module that writes the table."""
    spec = importlib.util.spec_from_file_location("table", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_has_the_current_table(table):
    text = table.README.read_text()
    assert text == table.updated(text), "run `python docs/table.py`"


def test_a_stale_table_is_replaced(table):
    text = table.README.read_text()
    assert table.updated(text.replace("| `sgld` |", "| `old` |")) == text


def test_a_readme_without_the_comments_is_refused(table):
    with pytest.raises(ValueError, match="must hold"):
        table.updated("no table")


def test_every_reference_has_a_year_and_no_cell_is_empty(table):
    for entry in table.entries():
        assert entry.summary, entry.name
        for reference in entry.references:
            assert reference.citation[-4:].isdigit(), reference
    transformations = [row.factory.__name__ for row in table.collect()]
    for line in table.table().splitlines():
        name, *cells = line.strip("| ").split(" | ")
        if name.strip("`") in transformations:
            assert len(cells) == 3, line
            assert all(cells), line
