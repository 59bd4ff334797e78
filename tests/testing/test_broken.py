"""Every check fails on the transformation that breaks it, and says why.

A row runs its check and the companions; the nightly run, all checks.
"""

import jax
import optax
import pytest

from optax_extras.testing import CHECKS, Spec, iter_checks
from optax_extras.testing.checks import _compile_time

from testing.broken import BROKEN, PLAIN, RANDOM, healthy

# No program compiles for minutes on every version, so the limit is lowered instead.
BY_ITS_LIMIT = "compiles_before_other_transformations"


def test_every_check_is_broken():
    assert {*BROKEN, BY_ITS_LIMIT} == set(CHECKS)


def test_slow_compilation_is_broken(monkeypatch):
    monkeypatch.setattr(_compile_time, "LIMIT", 0.01)
    (check,) = iter_checks(lambda: optax.sgd(0.1), checks=[BY_ITS_LIMIT])
    message = "a step with optax.adam behind it did not compile in 0.01 s"
    assert message in check.run().message


def fails_as_expected(name, checks):
    broken = BROKEN[name]
    with jax.numpy_rank_promotion("allow"):  # only the check of it may forbid it
        results = [check.run() for check in iter_checks(broken.spec, checks=checks)]
    failures = {result.check: result.message for result in results if not result.ok}
    assert set(failures) == {name} | broken.companions, failures
    assert broken.message in failures[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        # hypothesis takes long to find the shortest order that fails
        pytest.param(name, marks=[pytest.mark.nightly] * CHECKS[name].slow)
        for name in BROKEN
    ],
)
def test_broken(name):
    fails_as_expected(name, {name} | BROKEN[name].companions)


@pytest.mark.nightly
@pytest.mark.parametrize("name", BROKEN)
def test_broken_under_all_checks(name):
    fails_as_expected(name, {name, *(c.name for c in CHECKS.values() if not c.slow)})


@pytest.mark.nightly
@pytest.mark.parametrize("supports", [PLAIN, RANDOM], ids=["plain", "random"])
def test_healthy(supports):
    spec = Spec(
        "healthy",
        healthy,
        hyperparameters={"learning_rate": 0.1},
        schedules=["learning_rate"],
        supports=supports,
    )
    for check in iter_checks(spec, slow=supports is PLAIN):
        check()
