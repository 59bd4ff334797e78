"""What `optax-extras check` runs and prints: a transformation, or all of a module."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from optax_extras._core.importing import cause, check_call, load, nearest
from optax_extras.cli._optimizers import OPTIMIZERS
from optax_extras.cli._text import as_json, paragraph
from optax_extras.testing import CHECKS, Result, Spec
from optax_extras.testing._registry import NotApplicableError
from optax_extras.testing._subject import Subject, gradients, parameters

MARKS = {
    "passed": ("✓", "green"),
    "failed": ("✗", "red"),
    "advice": ("△", "yellow"),
    "not applicable": ("·", "dim"),
    "expected failure": ("x", "yellow"),
    "unexpected pass": ("!", "red"),
}
WORDS = {
    "passed": "passed",
    "failed": "broken contracts",
    "advice": "advice not followed",
    "not applicable": "not applicable",
    "expected failure": "expected failures",
    "unexpected pass": "unexpected passes",
}


def load_spec(text: str, supports: Sequence[str]) -> Spec:
    """The spec of a factory, perhaps with arguments, or of a `Spec`.

    Args:
      text: bundled optimizer, or ``module:attribute``; the module is looked for in the
        current folder too. Arguments that are numbers with a decimal point or an
        exponent are taken for hyperparameters.
      supports: capability flags.

    Raises:
      ValueError: there is no such object, it cannot be made, or it cannot be updated.
    """
    found, arguments = load(text, OPTIMIZERS, "`target`")
    if isinstance(found, Spec):
        if arguments or supports:
            raise ValueError(f"{text!r} is a Spec, and takes no further arguments")
        spec = found
    else:
        key = ["key"] if "random" in supports else []
        advice = "give it in brackets after the name (--supports random gives `key`)"
        check_call(repr(text), found, [*arguments, *key], advice=advice)
        spec = _spec(text, found, arguments, supports)
    _try(text, spec)
    return spec


def _spec(
    text: str, factory: Any, arguments: Mapping[str, Any], supports: Sequence[str]
) -> Spec:
    numbers = {k: v for k, v in arguments.items() if isinstance(v, float)}
    rest = {k: v for k, v in arguments.items() if k not in numbers}
    return Spec(
        text,
        functools.partial(factory, **rest) if rest else factory,
        hyperparameters=numbers,
        supports=supports,
    )


def _try(text: str, spec: Spec) -> None:
    """Makes the transformation and updates once; if it cannot, most checks fail."""
    try:
        subject = Subject(spec)
        tx, params = subject.make(), parameters()
        subject.update(tx, gradients(params, 0), tx.init(params), params)
    except NotApplicableError:  # there are too few devices for its axis
        return
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot run {text!r}: {cause(error)}") from error


def expect(specs: Sequence[Spec], expected: Sequence[str]) -> list[Spec]:
    """The specs with more expected failures.

    Args:
      specs: what is checked.
      expected: ``CHECK=REASON`` of all, or ``TRANSFORMATION.CHECK=REASON`` of one.

    Raises:
      ValueError: the form is another, or there is no such transformation or check.
    """
    reasons: dict[str, dict[str, str]] = {spec.name: {} for spec in specs}
    for text in expected:
        where, _, reason = text.partition("=")
        name, _, check = where.rpartition(".")
        if not (check and reason):
            raise ValueError(
                f"{text!r} is not of the form [TRANSFORMATION.]CHECK=REASON"
            )
        require_known(check)
        if name and name not in reasons:
            raise ValueError(f"{name!r} is not checked{nearest(name, reasons)}")
        for transformation in [name] if name else reasons:
            reasons[transformation][check] = reason
    return [
        dataclasses.replace(
            spec, expected_failures={**spec.expected_failures, **reasons[spec.name]}
        )
        for spec in specs
    ]


def require_known(check: str) -> None:
    """Raises a `ValueError` unless there is a check of this name."""
    if check not in CHECKS:
        raise ValueError(f"no check is called {check!r}{nearest(check, CHECKS)}")


def outcome(result: Result) -> str:
    """The status, in which advice that is not followed is no failure."""
    if result.status == "failed" and result.severity == "advice":
        return "advice"
    return result.status


def is_broken(results: Sequence[Result]) -> bool:
    """Whether a contract is not kept."""
    return any(outcome(r) in ("failed", "unexpected pass") for r in results)


def summary(results: Sequence[Result]) -> RenderableType:
    """The number of results of each outcome, in one line."""
    outcomes = list(map(outcome, results))
    counts = [
        _marked(name, f"{outcomes.count(name)} {words}")
        for name, words in WORDS.items()
        if name in outcomes
    ]
    start = Text(f"{len(results)} checks: ")
    return paragraph(start.append_text(Text(", ").join(counts)))


def findings(results: Sequence[Result], every: bool) -> Iterator[RenderableType]:
    """What failed, or every result, transformation by transformation."""
    for name, own in _by_transformation(results).items():
        shown = [result for result in own if every or not result.ok]
        if shown:
            yield paragraph(Text(name, "bold"))
        for result in shown:
            yield paragraph(_marked(outcome(result), result.check), 2)
            if result.message:
                yield paragraph(result.message, 4)
            if result.status == "failed":
                yield paragraph(Text(CHECKS[result.check].remedy, "dim"), 4)


def overview(results: Sequence[Result]) -> Iterator[RenderableType]:
    """The names of the checks that fail, transformation by transformation."""
    for name, own in _by_transformation(results).items():
        yield paragraph(Text(name, "bold"))
        for kind in ("failed", "unexpected pass", "advice"):
            checks = [result.check for result in own if outcome(result) == kind]
            if checks:
                yield paragraph(_marked(kind, ", ".join(checks)), 2)


def _by_transformation(results: Sequence[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.transformation, []).append(result)
    return found


def _marked(kind: str, text: str) -> Text:
    return Text.assemble(MARKS[kind], " ", text)


def to_json(results: Sequence[Result]) -> str:
    """A list of objects, one for each result."""
    fields = [f.name for f in dataclasses.fields(Result) if f.name != "error"]
    return as_json([{name: getattr(r, name) for name in fields} for r in results])
