"""What the library's docstrings say about its algorithms."""

import dataclasses
import inspect
import re

import optax_extras


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public function, the first line of its docstring, and its references."""

    name: str
    summary: str
    papers: tuple[str, ...]


def entries() -> list[Entry]:
    """An entry for every public algorithm and schedule, in the order of `__all__`."""
    functions = [
        function
        for function in (getattr(optax_extras, name) for name in optax_extras.__all__)
        if inspect.isfunction(function)
    ]
    return [
        _entry(function.__name__, inspect.getdoc(function)) for function in functions
    ]


def _entry(name: str, documentation: str | None) -> Entry:
    text = documentation or ""
    summary = text.split("\n\n")[0]
    _, _, references = text.partition("\nReferences:\n")
    papers = re.split(r"\n\s*\n", references.strip()) if references else []
    return Entry(name, _one_line(summary), tuple(map(_one_line, papers)))


def _one_line(text: str) -> str:
    return " ".join(text.split())
