"""What the library's docstrings say about its algorithms."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import optax_extras
from optax_extras.cli._text import as_json


@dataclasses.dataclass(frozen=True)
class Reference:
    """One entry of a References section: ``Authors year, "Title", arXiv number``."""

    text: str

    @property
    def citation(self) -> str:
        """Authors and year."""
        return self.text.partition(', "')[0]

    @property
    def arxiv(self) -> str | None:
        """The arXiv identifier, if there is one."""
        found = re.search(r"arXiv (\d{4}\.\d{4,5})", self.text)
        return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public function, the first line of its docstring, and its references."""

    name: str
    function: Callable[..., Any]
    summary: str
    references: tuple[Reference, ...]


def entries() -> list[Entry]:
    """An entry for every public algorithm and schedule, in the order of `__all__`."""
    public = (getattr(optax_extras, name) for name in optax_extras.__all__)
    return [_entry(value) for value in public if inspect.isfunction(value)]


def to_json(found: Sequence[Entry]) -> str:
    """A list of objects, one for each entry."""
    return as_json(
        [
            {
                "name": entry.name,
                "summary": entry.summary,
                "references": [
                    {"text": paper.text, "arxiv": paper.arxiv}
                    for paper in entry.references
                ],
            }
            for entry in found
        ]
    )


def _entry(function: Callable[..., Any]) -> Entry:
    text = inspect.getdoc(function) or ""
    _, _, section = text.partition("\nReferences:\n")
    references = re.split(r"\n\s*\n", section.strip()) if section else []
    return Entry(
        name=function.__name__,
        function=function,
        summary=_one_line(text.partition("\n\n")[0]),
        references=tuple(Reference(_one_line(entry)) for entry in references),
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
