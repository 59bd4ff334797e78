"""Runs the conformance suite on optax's own optimizers, and writes the report of it.

``python docs/conformance_optax.py`` runs all of them, in about twelve minutes, and
writes the page. With names, such as ``optax.sgd optax.contrib.madgrad``, it runs these
and prints the page.

Every failure is shown again by lines of JAX and optax alone, `reproductions/CHECK.py`.
They are written for one alias, and run for each that fails the check with three things
replaced: the line `tx = …`, the line `make = …` and the arguments of `update(g, s, p`.
They must raise the exception of the check, or `AssertionError` where it compares, and
nothing on an alias that passes the check. Otherwise the exit status is 1.
"""

import argparse
import datetime
import platform
import re
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import jax
import optax
from conformance_tables import (
    CALLED,
    FAILED,
    Alias,
    folded,
    listed,
    matrix,
    shortened,
    summary,
)

from optax_extras import testing
from optax_extras.testing._aliases import LEFT_OUT

DOCS = Path(__file__).parent
MODULES = ("optax", "optax.contrib")


def adapted(code: str, alias: Alias, known: Mapping[str, Alias]) -> str:
    """Lines with the alias that they are written for, one of `known`, replaced."""
    names = re.findall(r"^(?:tx|make) = ([\w.]+)", code, re.MULTILINE)
    if alias.path in names:
        return code
    shown = next((known[name] for name in names if name in known), alias)
    own = code
    for old, new in zip(shown.lines, alias.lines, strict=True):
        own = own.replace(old, new)
    return own if own != code else "raise NotImplementedError"


def raised(code: str) -> Exception | None:
    """The exception that lines end in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(compile(code, "reproduction", "exec"), {})
        except Exception as error:
            return error
    return None


def alike(error: Exception | None, known: Exception | None) -> bool:
    """Whether lines fail like a check."""
    if isinstance(known, testing.ConformanceError):
        if known.__cause__ is None:
            return type(error) is AssertionError
        known = known.__cause__  # what the check explains
    return type(error) is type(known) and str(error)[:30] == str(known)[:30]


def section(
    check: testing.Check, aliases: list[Alias], known: Mapping[str, Alias]
) -> tuple[str, int, int]:
    """A failing check on the page, how often it fails, and how often its lines do."""
    path = DOCS / "reproductions" / f"{check.name}.py"
    code = path.read_text() if path.exists() else "raise NotImplementedError"
    groups: dict[str, list[Alias]] = {}
    reproduced, missing = 0, []
    for alias in (alias for alias in aliases if alias.fails(check.name)):
        result = alias.results[check.name]
        groups.setdefault(shortened(result.message), []).append(alias)
        if alike(raised(adapted(code, alias, known)), result.error):
            reproduced += 1
        else:
            missing.append(alias)
    failures = reproduced + len(missing)
    passing = [a for a in aliases if a.results[check.name].status == "passed"]
    passing.sort(key=lambda a: a.spec.name != "sgd")  # the best known comes first
    controls = (a for a in passing if raised(adapted(code, a, known)) is None)
    control = next(controls, None)
    outcome = f"Reproduced: {reproduced} of {failures}. "
    if control is not None:
        outcome += f"The lines pass with `{control.path}`."
    elif passing:
        outcome += (
            f"**The lines of `{check.name}` pass with no optimizer that passes it.**"
        )
    else:
        outcome += "No optimizer passes this check."
    if missing:
        outcome += f"\n\n**Not reproduced: {check.name} of {listed(missing)}.**"
    held, _, rest = check.documentation.partition("Why:")
    text = f"""\
### {check.name}

{" ".join(held.split())} ({check.severity.capitalize()}.)

Why: {" ".join(rest.partition("Source:")[0].split())}

Source: {check.source}

{chr(10).join(f"- `` {message} ``: {listed(g)}" for message, g in groups.items())}

```python
{code}```

{outcome}
"""
    return text, failures, reproduced


def find() -> dict[str, Alias]:
    """Every optimizer by its path; without results."""
    found = (
        Alias(module, spec, {})
        for module in MODULES
        for spec in testing.aliases_of(module)
    )
    return {alias.path: alias for alias in found}


def checked(alias: Alias) -> Alias:
    """An optimizer with its results."""
    print(alias.path, file=sys.stderr, flush=True)
    results = testing.check_transformation(alias.spec, on_fail="collect")
    return Alias(alias.module, alias.spec, {r.check: r for r in results})


def page(aliases: list[Alias], known: Mapping[str, Alias], started: float) -> str:
    """The report; what was not reproduced is in bold."""
    checks = [testing.CHECKS[name] for name in aliases[0].results]
    failing = [c for c in checks if any(alias.fails(c.name) for alias in aliases)]
    texts: dict[str, list[str]] = {"contract": [], "advice": []}
    failures, reproduced = 0, 0
    for check in failing:
        text, failed, shown = section(check, aliases, known)
        texts[check.severity].append(text)
        failures, reproduced = failures + failed, reproduced + shown
    devices = f"{jax.device_count()} {jax.default_backend()} devices"
    left_out = ", ".join(f"`{name}` ({why})" for name, why in LEFT_OUT.items())
    marks = ", ".join(f"{mark} {CALLED[name]}" for name, mark in FAILED.items())
    tables = "\n".join(matrix(module, aliases) for module in MODULES)
    rows = ("| `" + "` | `".join(alias.lines) + ")` |\n" for alias in aliases)
    lines = "| `tx = …` | `make = …` | `update(g, s, p…` |\n| --- | --- | --- |\n"
    return f"""\
# Conformance of optax's optimizers

What `optax_extras.testing` finds on the {len(aliases)} optimizers that optax exports.

## Summary

{summary(aliases)}
{reproduced} of the {failures} failures are reproduced below by lines of JAX and optax
alone.

`python docs/conformance_optax.py` wrote this page on {datetime.date.today()} with optax
{optax.__version__} and JAX {jax.__version__} on {devices}, Python
{platform.python_version()}, in {time.perf_counter() - started:.0f} seconds. An
optimizer is a function that returns a transformation and takes a learning rate. Left
out are {left_out}.

## Every check and optimizer

A column is an optimizer: {marks}, a blank passes, · does not apply.

{folded("The tables of all checks that fail", tables)}
## How to read a failure

For each check: what it holds, why, the messages of the optimizers that fail it, and
lines that show the fault with JAX and optax alone. They are written for one optimizer;
those of the others are in the [last table](#lines-of-each-optimizer). All have been run
on every optimizer that fails, where they must raise the check's exception, or an
`AssertionError` where the check compares; and on one that passes, where they must raise
nothing.

## Contracts broken

{chr(10).join(texts["contract"])}
## Advice not followed

{chr(10).join(texts["advice"])}
## Lines of each optimizer

{folded("What takes the place of a reproduction's own", lines + "".join(rows))}"""


def main() -> None:
    """Runs the suite and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as optax.sgd")
    names = parser.parse_args().names
    jax.config.update("jax_num_cpu_devices", 8)
    started = time.perf_counter()
    known = find()
    if unknown := set(names) - known.keys():
        parser.error(f"optax has no optimizer {', '.join(sorted(unknown))}")
    aliases = [checked(known[name]) for name in names or known]
    text = page(aliases, known, started)
    if names:
        print(text)
    else:
        (DOCS / "conformance-optax.md").write_text(text)
    sys.exit("\n".join(re.findall(r"\*\*(Not .+|The .+)\*\*", text)) or None)


if __name__ == "__main__":
    main()
