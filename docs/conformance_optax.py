"""Runs the conformance suite on optax's own optimizers, and writes the report of it.

Every failure is shown again by lines of JAX and optax alone, `reproductions/CHECK.py`.
They are written for one alias, and run for each that fails the check with three things
replaced: the line `tx = …`, the line `make = …` and the arguments of `update(g, s, p`.
They must raise the exception of the check, or `AssertionError` where it compares, and
nothing on an alias that passes the check. Otherwise the exit status is 1.
"""

import dataclasses
import datetime
import platform
import re
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import jax
import optax

from optax_extras import testing
from optax_extras.testing._aliases import LEFT_OUT, RATES

DOCS = Path(__file__).parent
MODULES = ("optax", "optax.contrib")
# What an alias is called with, where that is not its learning rate.
ARGUMENTS = {"noisy_sgd": "0.1, key=7", "schedule_free": "optax.sgd(0.1), 0.1"}
# Its factory, where not all arguments may become arrays.
FACTORIES = {
    "adopt": "lambda rate: optax.contrib.adopt(rate)",
    "galore": "lambda rate: optax.contrib.galore(rate)",
    "madgrad": "lambda rate: optax.contrib.madgrad(rate)",
    "muon": "lambda rate, adam_b2=0.999: optax.contrib.muon(rate, adam_b2=adam_b2)",
    "noisy_sgd": "lambda rate: optax.noisy_sgd(rate, key=7)",
    "schedule_free": "lambda rate: optax.contrib.schedule_free(optax.sgd(rate), rate)",
}
# What its update needs beside gradients, state and parameters.
EXTRA = {
    **dict.fromkeys(("momo", "momo_adam", "polyak_sgd"), ", value=1.0"),
    "lbfgs": ", value=optax.tree.sum(p), grad=g, value_fn=optax.tree.sum",
    "sophia": ", obj_fn=optax.tree.sum",
}
CELLS = {"failed": "✗", "passed": " ", "not applicable": "·"}


@dataclasses.dataclass(frozen=True)
class Alias:
    """An optimizer of optax, and its results by the names of the checks."""

    module: str
    spec: testing.Spec
    results: dict[str, testing.Result]

    @property
    def path(self) -> str:
        """Where to import it from."""
        return f"{self.module}.{self.spec.name}"

    @property
    def lines(self) -> tuple[str, str, str]:
        """What is its own in a reproduction."""
        name, values = self.spec.name, self.spec.hyperparameters
        rate = next((str(values[r]) for r in RATES if r in values), "")
        return (
            f"tx = {self.path}({ARGUMENTS.get(name, rate)})",
            f"make = {FACTORIES.get(name, self.path)}",
            f"update(g, s, p{EXTRA.get(name, '')}",
        )

    def fails(self, check: str) -> bool:
        """Whether it fails a check."""
        return not self.results[check].ok


def adapted(code: str, alias: Alias, aliases: list[Alias]) -> str:
    """Lines with the alias that they are written for replaced."""
    names = re.findall(r"^(?:tx|make) = ([\w.]+)", code, re.MULTILINE)
    if alias.path in names:
        return code
    shown = next((other for other in aliases if other.path in names), alias)
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


def shortened(message: str) -> str:
    """A message without what differs from alias to alias."""
    text = " ".join(message.split())
    text = re.sub(
        r"\[[-+.\w\s]+,[^]]*\]", lambda m: "[nan, …]" if "nan" in m[0] else "[…]", text
    )
    text = re.sub(r",? at \S+:", ":", text)  # where in the tree
    return text if len(text) <= 110 else text[:110].rpartition(" ")[0] + " …"


def listed(aliases: Iterable[Alias]) -> str:
    """The aliases in words."""
    return ", ".join(f"`{alias.path}`" for alias in aliases)


def matrix(module: str, aliases: list[Alias]) -> str:
    """The table of a module: failing checks by aliases."""
    mine = [alias for alias in aliases if alias.module == module]
    rows, whole = [], []
    for check in aliases[0].results:
        if any(alias.fails(check) for alias in mine):
            cells = (CELLS[alias.results[check].status] for alias in mine)
            rows.append(f"| [{check}](#{check}) | {' | '.join(cells)} |")
        else:
            whole.append(f"`{check}`")
    return f"""\
### `{module}`

{", ".join(f"{i} `{alias.spec.name}`" for i, alias in enumerate(mine, 1))}

| check | {" | ".join(map(str, range(1, len(mine) + 1)))} |
| --- |{" :-: |" * len(mine)}
{chr(10).join(rows)}

None of them fails these {len(whole)} checks: {", ".join(whole)}.
"""


def section(check: testing.Check, aliases: list[Alias]) -> tuple[str, int, int]:
    """A failing check on the page, how often it fails, and how often its lines do."""
    path = DOCS / "reproductions" / f"{check.name}.py"
    code = path.read_text() if path.exists() else "raise NotImplementedError"
    groups: dict[str, list[Alias]] = {}
    reproduced, missing = 0, []
    for alias in (alias for alias in aliases if alias.fails(check.name)):
        result = alias.results[check.name]
        groups.setdefault(shortened(result.message), []).append(alias)
        if alike(raised(adapted(code, alias, aliases)), result.error):
            reproduced += 1
        else:
            missing.append(alias)
    failures = reproduced + len(missing)
    passing = [a for a in aliases if a.results[check.name].status == "passed"]
    passing.sort(key=lambda a: a.spec.name != "sgd")  # the best known comes first
    controls = (a for a in passing if raised(adapted(code, a, aliases)) is None)
    control = next(controls, None)
    outcome = f"Reproduced: {reproduced} of {failures}. "
    if control is not None:
        outcome += f"The lines pass with `{control.path}`."
    elif passing:
        outcome += f"**The lines of `{check.name}` pass with no alias that passes it.**"
    else:
        outcome += "No alias passes this check."
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


def main() -> None:
    """Runs everything and writes the page."""
    jax.config.update("jax_num_cpu_devices", 8)
    started = time.perf_counter()
    aliases = []
    for module in MODULES:
        for spec in testing.aliases_of(module):
            print(f"{module}.{spec.name}", flush=True)
            results = testing.check_transformation(spec, on_fail="collect")
            aliases.append(Alias(module, spec, {r.check: r for r in results}))
    checks = [testing.CHECKS[name] for name in aliases[0].results]
    failing = [c for c in checks if any(alias.fails(c.name) for alias in aliases)]
    sections = [section(check, aliases) for check in failing]
    texts, failures, reproduced = zip(*sections, strict=True)
    devices = f"{jax.device_count()} {jax.default_backend()} devices"
    left_out = ", ".join(f"`{name}` ({why})" for name, why in LEFT_OUT.items())
    rows = ("` | `".join(alias.lines) for alias in aliases)
    page = f"""\
# Conformance of optax's optimizers

What `optax_extras.testing` finds on the optimizers that optax exports, written by
`python docs/conformance_optax.py` on {datetime.date.today()}.

- {len(aliases)} aliases, the functions of optax that return a transformation and take a
  learning rate. Left out are {left_out}.
- {len(checks)} checks, of which {len(failing)} fail for some alias.
- {sum(failures)} failures, {sum(reproduced)} of them reproduced without this library.
- optax {optax.__version__}, JAX {jax.__version__} on {devices}, Python
  {platform.python_version()}, {time.perf_counter() - started:.0f} seconds.

A contract is what optax documents or tests or what JAX needs; advice is what this
suite recommends beyond it. A failure here is a difference from what
the suite holds, and not necessarily a bug for optax's users.

## Results

✗ fails, a blank passes, and · does not apply. Columns are aliases.

{chr(10).join(matrix(module, aliases) for module in MODULES)}
## Failures

For each check: what it holds, why, the messages of the aliases that fail it, and lines
that show the fault with JAX and optax alone. They are written for one alias; those of
the others are in the [last table](#lines-of-each-alias). All have been run on every
alias that fails, where they must raise the check's exception, or an `AssertionError`
where the check compares; and on one that passes, where they must raise nothing.

{chr(10).join(texts)}
## Lines of each alias

| `tx = …` | `make = …` | `update(g, s, p…` |
| --- | --- | --- |
{chr(10).join(f"| `{row})` |" for row in rows)}
"""
    (DOCS / "conformance-optax.md").write_text(page)
    sys.exit("\n".join(re.findall(r"\*\*(Not .+|The .+)\*\*", page)) or None)


if __name__ == "__main__":
    main()
