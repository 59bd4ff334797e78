"""What `optax-extras check` runs and prints: a transformation, or all of a module."""

import ast
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from optax_extras._core.importing import load_attribute
from optax_extras.testing import CHECKS, BoundCheck, Result, Spec, iter_checks
from optax_extras.testing._subject import Subject

MARKS = {
    "passed": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "advice": "[yellow]△[/]",
    "not applicable": "[dim]·[/]",
    "expected failure": "[yellow]x[/]",
    "unexpected pass": "[red]![/]",
}
WORDS = {
    "passed": "passed",
    "failed": "broken contracts",
    "advice": "advice not followed",
    "not applicable": "not applicable",
    "expected failure": "expected failures",
    "unexpected pass": "unexpected passes",
}


def load(target: str, arguments: Sequence[str], supports: Sequence[str]) -> Spec:
    """The spec of `module:attribute`, a factory or a `Spec`.

    Args:
      target: where it is; the module is looked for in the current folder too.
      arguments: `name=value` for the factory, in Python's notation; numbers with a
        decimal point or an exponent are taken for hyperparameters.
      supports: capability flags.

    Raises:
      ValueError: there is no such module or attribute, or an argument is malformed.
    """
    found = load_attribute(target)
    if isinstance(found, Spec):
        if arguments or supports:
            raise ValueError(f"{target!r} is a Spec, and takes no further arguments")
        spec = found
    else:
        spec = _spec(target.partition(":")[2], found, arguments, supports)
    try:
        Subject(spec).make()
    except Exception as error:
        raise ValueError(f"cannot make {target!r}: {error}") from error
    return spec


def _spec(
    name: str, factory: Any, arguments: Sequence[str], supports: Sequence[str]
) -> Spec:
    values = dict(map(_parse, arguments))
    numbers = {k: v for k, v in values.items() if isinstance(v, float)}
    rest = {k: v for k, v in values.items() if k not in numbers}
    return Spec(
        name,
        functools.partial(factory, **rest) if rest else factory,
        hyperparameters=numbers,
        supports=supports,
    )


def _parse(argument: str) -> tuple[str, Any]:
    name, equals, text = argument.partition("=")
    if not (name.isidentifier() and equals):
        raise ValueError(f"{argument!r} is not of the form name=value")
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name, text


def run(
    specs: Iterable[Spec], slow: bool, on_check: Callable[[BoundCheck], object]
) -> list[Result]:
    """The results of every check of every spec; `on_check` is called before each."""
    results = []
    for spec in specs:
        for check in iter_checks(spec, slow=slow):
            on_check(check)
            results.append(check.run())
    return results


def outcome(result: Result) -> str:
    """The status, in which advice that is not followed is no failure."""
    if result.status == "failed" and result.severity == "advice":
        return "advice"
    return result.status


def is_broken(results: Sequence[Result]) -> bool:
    """Whether a contract is not kept."""
    return any(outcome(r) in ("failed", "unexpected pass") for r in results)


def summary(results: Sequence[Result]) -> str:
    """The number of results of each outcome, in one line."""
    outcomes = list(map(outcome, results))
    counts = [
        f"{MARKS[name]} {outcomes.count(name)} {words}"
        for name, words in WORDS.items()
        if name in outcomes
    ]
    return f"{len(results)} checks: {', '.join(counts)}"


def table(results: Sequence[Result], every: bool) -> Table:
    """What failed, or every result, of one transformation."""
    rows = Table(
        title=results[0].transformation, title_justify="left", show_lines=not every
    )
    rows.add_column("check", no_wrap=True)
    rows.add_column("")
    rows.add_column("what was found")
    for result in results:
        if every or not result.ok:
            found = escape(result.message)
            if not result.ok:
                found += f"\n[dim]{escape(CHECKS[result.check].remedy)}[/]"
            rows.add_row(result.check, MARKS[outcome(result)], found)
    return rows


def matrix(results: Sequence[Result]) -> Table:
    """Checks that fail for some transformation, against all transformations."""
    names = list(dict.fromkeys(result.transformation for result in results))
    found = {(r.check, r.transformation): r for r in results}
    rows = Table(
        caption="  ".join(f"{i} {name}" for i, name in enumerate(names, 1)),
        caption_justify="left",
        padding=(0, 0),
    )
    rows.add_column("check", no_wrap=True)
    for i in range(1, len(names) + 1):
        rows.add_column(f"{i:>2}", justify="right")
    for check in CHECKS:
        row = [found[check, name] for name in names if (check, name) in found]
        if any(not result.ok for result in row):
            rows.add_row(check, *(MARKS[outcome(result)] for result in row))
    return rows


def to_json(results: Sequence[Result]) -> str:
    """A list of objects, one for each result."""
    fields = [f.name for f in dataclasses.fields(Result) if f.name != "error"]
    rows = [{field: getattr(r, field) for field in fields} for r in results]
    return json.dumps(rows, indent=2)
