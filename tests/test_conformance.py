"""Every check on every transformation, with strict expected failures."""

import inspect

import pytest

from checks import CHECKS
from specs import SPECS

CASES = [
    pytest.param(
        check,
        spec,
        id=f"{spec.name}-{name}",
        marks=[pytest.mark.xfail(reason=spec.expected_failures[name])]
        if name in spec.expected_failures
        else [],
    )
    for spec in SPECS
    for name, check in CHECKS.items()
]


@pytest.mark.parametrize(("check", "spec"), CASES)
def test_conformance(check, spec, tmp_path):
    arguments = {"spec": spec, "tmp_path": tmp_path}
    check(**{name: arguments[name] for name in inspect.signature(check).parameters})


def test_expected_failures_name_checks():
    for spec in SPECS:
        assert set(spec.expected_failures) <= set(CHECKS), spec.name
