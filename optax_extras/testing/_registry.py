"""What a check is, and the table of all of them."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from optax_extras.testing._subject import Subject

Severity = Literal["contract", "advice"]
Function = Callable[["Subject"], str | None]


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
      severity: `"contract"` where JAX and optax stop working or numbers go wrong, and
        `"advice"` where it costs users comfort, speed or memory.
      slow: whether it runs only when asked for.
    """

    name: str
    function: Function
    severity: Severity
    slow: bool = False

    @property
    def documentation(self) -> str:
        """What it holds, why, and how to mend a failure."""
        return inspect.getdoc(self.function) or ""

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
