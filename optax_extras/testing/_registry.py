"""What a check is, and the table of all of them."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Literal

Severity = Literal["contract", "advice"]
Function = Callable[[Any], str | None]  # of a `Subject`


class ConformanceError(AssertionError):
    """A transformation that breaks what a check holds."""


class NotApplicableError(Exception):
    """A check that has nothing to check; its message says why."""


@dataclasses.dataclass(frozen=True)
class Check:
    """A check and what is known of it.

    Attributes:
      name: its id.
      function: raises when its subject breaks it; may return what it measured.
      severity: `"contract"` if optax documents or tests it, if JAX needs it or if the
        spec declares it, and `"advice"` if this suite alone recommends it.
      slow: whether it runs only when asked for.
    """

    name: str
    function: Function
    severity: Severity
    slow: bool = False

    @property
    def documentation(self) -> str:
        """What it holds, why, who says so, and how to mend a failure."""
        return inspect.getdoc(self.function) or ""

    @property
    def source(self) -> str:
        """Who asks for it, in one line."""
        after = self.documentation.partition("Source:")[2]
        return " ".join(after.partition("Fix:")[0].split())

    @property
    def remedy(self) -> str:
        """How to mend a failure, in one line."""
        return " ".join(self.documentation.partition("Fix:")[2].split())


# All checks by name, in the order in which they run.
CHECKS: dict[str, Check] = {}


def check(
    severity: Severity = "contract", *, slow: bool = False
) -> Callable[[Function], Function]:
    """Registers a function as the check of its name."""

    def register(function: Function) -> Function:
        name = function.__name__
        CHECKS[name] = Check(name, function, severity, slow)
        return function

    return register
