"""The tables of the report on optax: which optimizer breaks what."""

import collections
import dataclasses
import re
from collections.abc import Iterable

from optax_extras import testing
from optax_extras.testing._aliases import RATES

# What an alias is called with, where that is not its learning rate.
ARGUMENTS = {"noisy_sgd": "0.1, key=7", "schedule_free": "optax.sgd(0.1), 0.1"}
# Its factory, where not all arguments may become arrays.
FACTORIES = {
    "adopt": "lambda rate: optax.contrib.adopt(rate)",
    "galore": "lambda rate: optax.contrib.galore(rate)",
    "madgrad": "lambda rate, momentum=0.9: optax.contrib.madgrad(rate, momentum)",
    "muon": "lambda rate, adam_b2=0.999: optax.contrib.muon(rate, adam_b2=adam_b2)",
    "noisy_sgd": "lambda rate: optax.noisy_sgd(rate, key=7)",
    "schedule_free": "lambda rate, b1=0.9:"
    " optax.contrib.schedule_free(optax.sgd(rate), rate, b1)",
}
# What its update needs beside gradients, state and parameters.
EXTRA = {
    **dict.fromkeys(("momo", "momo_adam", "polyak_sgd"), ", value=1.0"),
    "lbfgs": ", value=optax.tree.sum(p), grad=g, value_fn=optax.tree.sum",
    "sophia": ", obj_fn=optax.tree.sum",
}
# What a failure of each severity is called, and marked with.
CALLED = {"contract": "breaks the contract", "advice": "does not follow the advice"}
FAILED = {"contract": "✗", "advice": "○"}
OTHERWISE = {"passed": " ", "not applicable": "·"}


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

    def failures(self, severity: str) -> list[str]:
        """The names of the checks of a severity that it fails."""
        return [
            r.check
            for r in self.results.values()
            if not r.ok and r.severity == severity
        ]

    def mark(self, check: str) -> str:
        """Its cell in a table."""
        result = self.results[check]
        return OTHERWISE[result.status] if result.ok else FAILED[result.severity]


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


def linked(checks: Iterable[str]) -> str:
    """Names of checks, with links to their sections."""
    return ", ".join(f"[{check}](#{check})" for check in checks)


def summary(aliases: list[Alias]) -> str:
    """How many contracts are broken and how much advice is not followed, by whom."""
    ranked = sorted(aliases, key=lambda alias: -len(alias.failures("contract")))
    rows = (
        f"| `{alias.path}` | {linked(alias.failures('contract')) or 'none'} |"
        f" {len(alias.failures('advice'))} |"
        for alias in ranked
    )
    return f"""\
- **{_counted("contract", "contracts", aliases)}
- **{_counted("advice", "pieces of advice", aliases)}

A contract is what optax documents or tests, or what JAX needs. Advice is what this
suite recommends beyond that. A failure is a difference from what the suite holds, and
not necessarily a bug for optax's users.

| optimizer | contracts broken | advice not followed |
| --- | --- | --: |
{chr(10).join(rows)}
"""


def _counted(severity: str, plural: str, aliases: list[Alias]) -> str:
    held = sum(r.severity == severity for r in aliases[0].results.values())
    failing = collections.Counter(
        name for alias in aliases for name in alias.failures(severity)
    )
    whole = sum(not alias.failures(severity) for alias in aliases)
    often = [f"[{name}](#{name}) ({n})" for name, n in failing.most_common(3)]
    return (
        f"{held} {plural}.** {whole or 'None'} of the {len(aliases)} optimizers pass"
        f" all of them. There are {failing.total()} failures, in {len(failing)} of them"
        f"{', most often in ' if often else ''}{', '.join(often)}."
    )


def folded(title: str, text: str) -> str:
    """A part of the page that opens at a click."""
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n</details>\n"


def matrix(module: str, aliases: list[Alias]) -> str:
    """The table of a module: failing checks by aliases."""
    mine = [alias for alias in aliases if alias.module == module]
    if not mine:
        return ""
    rows, whole = [], []
    for check in aliases[0].results:
        if any(alias.fails(check) for alias in mine):
            cells = " | ".join(alias.mark(check) for alias in mine)
            rows.append(f"| [{check}](#{check}) | {cells} |")
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
