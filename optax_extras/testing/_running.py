"""Running the checks of a transformation, one by one or all at once."""

import dataclasses
import re
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

from optax_extras.testing._registry import (
    Check,
    ConformanceError,
    NotApplicableError,
    Severity,
)
from optax_extras.testing._spec import Spec, check_names
from optax_extras.testing._subject import Subject
from optax_extras.testing.checks import CHECKS

Status = Literal[
    "passed", "failed", "not applicable", "expected failure", "unexpected pass"
]


class ConformanceWarning(UserWarning):
    """Advice that a transformation does not follow."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a check found.

    Attributes:
      transformation: the spec's name.
      check: the check's name.
      severity: `"contract"` or `"advice"`.
      status: `"passed"`, `"failed"`, `"not applicable"`, `"expected failure"` or
        `"unexpected pass"`, which counts as a failure.
      message: what failed, why it does not apply, or what was measured.
      seconds: how long it took.
      error: the exception, if one was raised.
    """

    transformation: str
    check: str
    severity: Severity
    status: Status
    message: str
    seconds: float
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.status not in ("failed", "unexpected pass")


@dataclasses.dataclass(frozen=True)
class BoundCheck:
    """A check of one transformation, to be called; `iter_checks` makes them.

    Attributes:
      check: the check.
      subject: the transformation, and what its checks have computed so far.
    """

    check: Check
    subject: Subject

    @property
    def name(self) -> str:
        """The check's name."""
        return self.check.name

    @property
    def expected_failure(self) -> str | None:
        """The reason why it should fail, if it should."""
        return self.subject.spec.expected_failures.get(self.name)

    def __repr__(self) -> str:
        """The names of the transformation and the check."""
        return f"{self.subject.spec.name}-{self.name}"

    def __call__(self) -> Result:
        """Runs it, and raises `ConformanceError` where the result is not ok."""
        result = self.run()
        if not result.ok:
            raise _failure(result) from result.error
        return result

    def run(self) -> Result:
        """Runs it; a failure is in the result."""
        started = time.perf_counter()
        error: BaseException | None = None
        status: Status = "passed"
        try:
            message = self.check.function(self.subject) or ""
        except NotApplicableError as reason:
            status, message = "not applicable", str(reason)
        except (Exception, SystemExit) as failure:  # a factory may call `sys.exit`
            status, message, error = "failed", _describe(failure), failure
        if self.expected_failure is not None:
            if status == "failed":
                status = "expected failure"
            else:
                status = "unexpected pass"
                message = f"expected to fail: {self.expected_failure}"
        return Result(
            transformation=self.subject.spec.name,
            check=self.name,
            severity=self.check.severity,
            status=status,
            message=message,
            seconds=time.perf_counter() - started,
            error=error,
        )


def _describe(error: BaseException) -> str:
    if isinstance(error, ConformanceError):
        return str(error)
    try:
        text = str(error)
    except Exception:  # an author's exception may have no text
        return type(error).__name__
    # What JAX adds to a message, such as where its frames were removed, is no news.
    text = re.split(r"\n-----|For simplicity, JAX", text)[0]
    text = "\n".join(part.strip() for part in text.split("\n\n")[:3]).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _failure(result: Result) -> ConformanceError:
    documentation = CHECKS[result.check].documentation
    return ConformanceError(
        f"{result.transformation} breaks {result.check}: {result.message}\n\n"
        f"{documentation}"
    )


def iter_checks(
    spec: Spec | Callable[[], Any],
    *,
    checks: Collection[str] | None = None,
    slow: bool = False,
) -> Iterator[BoundCheck]:
    """The checks of a transformation, each to be called.

    Args:
      spec: a `Spec`, or a function that makes the transformation.
      checks: names of the checks wanted; all by default.
      slow: whether to include the slow tier, which needs hypothesis.

    Yields:
      A check: calling it returns a `Result` or raises `ConformanceError`; its method
      ``run`` returns the result of a failure too. They share what they compute.

    Raises:
      TypeError: ``spec`` is neither a `Spec` nor a function.
      ValueError: ``checks`` or an expected failure names an unknown check.

    Examples:
      >>> import optax
      >>> from optax_extras.testing import iter_checks
      >>> for check in iter_checks(lambda: optax.sgd(0.1), checks=["pure", "chain"]):
      ...     print(check().check, check().status)
      pure passed
      chain passed
    """
    subject = Subject(_as_spec(spec))
    check_names("checks", checks or (), CHECKS)
    check_names("expected_failures", subject.spec.expected_failures, CHECKS)
    return (
        BoundCheck(check, subject)
        for check in CHECKS.values()
        if (check.name in checks if checks is not None else slow or not check.slow)
    )


def _as_spec(spec: Any) -> Spec:
    if isinstance(spec, Spec):
        return spec
    if not callable(spec):
        raise TypeError(
            "`spec` must be a `Spec` or a function that makes the transformation, such"
            f" as `lambda: optax.adam(1e-3)`; got {spec!r}"
        )
    return Spec(getattr(spec, "__name__", type(spec).__name__), spec)


def check_transformation(
    spec: Spec | Callable[[], Any],
    *,
    on_fail: Literal["raise", "collect"] = "raise",
    checks: Collection[str] | None = None,
    slow: bool = False,
) -> list[Result]:
    """Checks that a gradient transformation keeps the contract of JAX and optax.

    Args:
      spec: a `Spec`, or a function that makes the transformation.
      on_fail: `"raise"` raises at the first broken contract and warns of advice that
        is not followed; `"collect"` does neither.
      checks: names of the checks wanted; all by default.
      slow: whether to include the slow tier, which needs hypothesis.

    Returns:
      The result of every check that ran.

    Raises:
      ConformanceError: a contract is broken, or an expected failure passes.
      TypeError: ``spec`` is neither a `Spec` nor a function.
      ValueError: an argument has an unknown value.

    Examples:
      >>> import optax
      >>> from optax_extras.testing import check_transformation
      >>> results = check_transformation(
      ...     lambda: optax.sgd(0.1), checks=["zero_gradients", "donation"]
      ... )
      >>> [result.status for result in results]
      ['passed', 'passed']
    """
    if on_fail not in ("raise", "collect"):
        raise ValueError(f"`on_fail` must be 'raise' or 'collect', got {on_fail!r}")
    results = []
    for check in iter_checks(spec, checks=checks, slow=slow):
        result = check.run()
        results.append(result)
        if on_fail == "collect" or result.ok:
            continue
        if result.severity == "contract" or result.status == "unexpected pass":
            raise _failure(result) from result.error
        warnings.warn(str(_failure(result)), ConformanceWarning, stacklevel=2)
    return results
