"""A conformance suite for anyone's gradient transformation.

`check_transformation` runs every check, `iter_checks` hands them out one by one, and
`parametrize_checks` makes pytest tests of them; a `Spec` says what they need to know.
Checks that need several devices are left out where there is one; those that need
orbax-checkpoint or hypothesis, where these are not installed.
"""

from typing import TYPE_CHECKING, Any

from optax_extras.testing._aliases import aliases_of as aliases_of
from optax_extras.testing._registry import (
    Check as Check,
    ConformanceError as ConformanceError,
)
from optax_extras.testing._running import (
    BoundCheck as BoundCheck,
    ConformanceWarning as ConformanceWarning,
    Result as Result,
    check_transformation as check_transformation,
    iter_checks as iter_checks,
)
from optax_extras.testing._spec import (
    CAPABILITIES as CAPABILITIES,
    Spec as Spec,
    StepArguments as StepArguments,
)
from optax_extras.testing.checks import CHECKS as CHECKS

if TYPE_CHECKING:
    from optax_extras.testing._parametrize import (
        parametrize_checks as parametrize_checks,
    )


def __getattr__(name: str) -> Any:
    """Imports pytest for `parametrize_checks` alone."""
    if name == "parametrize_checks":
        try:
            from optax_extras.testing._parametrize import parametrize_checks
        except ModuleNotFoundError as error:
            raise ImportError(
                "`parametrize_checks` needs pytest: pip install 'optax-extras[test]'"
            ) from error
        return parametrize_checks
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
