"""The checks as a parametrized pytest test; the one module here that imports pytest."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest

from optax_extras.testing._running import BoundCheck, iter_checks
from optax_extras.testing._spec import Spec


def parametrize_checks(
    specs: Iterable[Spec],
    *,
    checks: Collection[str] | None = None,
    slow: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turns a test with an argument ``check`` into one test for each spec and check.

    A test's id is the spec's name, a dash and the check's name, for ``-k``. Expected
    failures are marked `xfail`, strictly, and what does not apply is skipped.

    Args:
      specs: the transformations.
      checks: names of the checks wanted; all by default.
      slow: whether to include the slow tier, which needs hypothesis.

    Returns:
      A decorator.

    Raises:
      ValueError: a check has an unknown name.

    Examples:
      ::

        @parametrize_checks([Spec("adam", lambda: optax.adam(1e-3))])
        def test_conformance(check):
            check()
    """
    return pytest.mark.parametrize(
        "check",
        [
            _parameter(check)
            for spec in specs
            for check in iter_checks(spec, checks=checks, slow=slow)
        ],
    )


def _parameter(check: BoundCheck) -> Any:
    def run() -> None:
        result = check.run()
        if result.status == "not applicable":
            pytest.skip(result.message)
        if result.error is not None:
            result.error.add_note(check.check.documentation)
            raise result.error

    marks = []
    if check.expected_failure is not None:
        marks.append(pytest.mark.xfail(strict=True, reason=check.expected_failure))
    return pytest.param(run, id=repr(check), marks=marks)
