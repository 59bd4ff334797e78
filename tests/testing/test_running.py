"""Specs, results, and the ways in which the suite is run."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_extras.testing import (
    CHECKS,
    ConformanceError,
    ConformanceWarning,
    Spec,
    check_transformation,
    iter_checks,
)


def sgd(learning_rate=0.1):
    return optax.sgd(learning_rate)


def one_leaf():
    """Breaks a contract: its updates have another structure than the parameters."""
    return optax.stateless(lambda updates, params: updates["w"])


def with_a_typed_key():
    """Keeps the contract but does not follow the advice."""
    return optax.add_noise(0.1, 0.5, key=1)


def test_gradients_are_taken_where_the_method_wants_them():
    def opposite(state, params):
        return jax.tree.map(jnp.negative, params)

    for point, ok in ((None, True), (opposite, False)):
        spec = Spec("sgd", sgd, gradient_params=point, supports={"descent"})
        (check,) = iter_checks(spec, checks=["descends_a_parabola"])
        assert check.run().ok == ok


def test_without_pytest_its_functions_say_what_they_need():
    code = (
        "import sys\nsys.modules['pytest'] = None\n"
        "from optax_extras.testing import check_transformation, parametrize_checks"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False
    )
    assert "ImportError: `parametrize_checks` needs pytest: pip install" in found.stderr


@pytest.mark.parametrize("check", CHECKS.values(), ids=lambda check: check.name)
def test_every_check_says_what_why_who_and_how_to_mend(check):
    paragraphs = check.documentation.split("\n\n")
    assert paragraphs[0].endswith(".")
    assert paragraphs[1].startswith("Why: ")
    assert check.source.endswith(".")
    assert check.remedy.endswith(".")
    if check.severity == "contract":
        assert re.search("optax|JAX|jax|the spec", check.source)
    else:
        assert check.source == "this suite (advice)."


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"supports": {"flight"}}, ValueError, "`supports` must be among complex,"),
        ({"supports": "random"}, TypeError, "`supports` must be a collection"),
        ({"schedules": ["rate"]}, ValueError, "`schedules` must be among none"),
        ({"make": optax.sgd(0.1)}, TypeError, "`make` must be a function"),
        ({"name": 1}, TypeError, "`name` must be a string, got 1"),
    ],
)
def test_bad_specs(arguments, error, message):
    with pytest.raises(error, match=message):
        Spec(**{"name": "sgd", "make": sgd, **arguments})


def test_a_spec_is_frozen():
    with pytest.raises(AttributeError):
        Spec("sgd", sgd).name = "other"


def test_raises_at_the_first_broken_contract():
    with pytest.raises(ConformanceError) as caught:
        check_transformation(one_leaf)
    text = str(caught.value)
    assert text.startswith("one_leaf breaks updates_match_parameters: the updates at")
    assert "Why: `optax.apply_updates` broadcasts" in text
    assert "Fix: return one array" in text


def test_collects_results():
    results = check_transformation(one_leaf, on_fail="collect")
    assert [r.check for r in results] == [n for n in CHECKS if not CHECKS[n].slow]
    by_name = {result.check: result for result in results}
    failed = by_name["updates_match_parameters"]
    assert (failed.status, failed.ok) == ("failed", False)
    assert failed.error is not None
    assert by_name["pure"].ok
    assert by_name["descends_a_parabola"].status == "not applicable"
    assert by_name["state_bytes"].message == "0 B per parameter"
    assert all(result.seconds >= 0 for result in results)


def test_warns_of_advice():
    names = ["state_holds_plain_arrays", "pure"]
    with pytest.warns(ConformanceWarning, match="breaks state_holds_plain_arrays"):
        results = check_transformation(with_a_typed_key, checks=names)
    assert {result.check: result.status for result in results} == {
        "pure": "passed",
        "state_holds_plain_arrays": "failed",
    }


def test_expected_failures_are_strict():
    name = "updates_match_parameters"
    known = Spec("one_leaf", one_leaf, expected_failures={name: "known"})
    (result,) = check_transformation(known, checks=[name])
    assert result.status == "expected failure"
    mended = Spec("sgd", sgd, expected_failures={name: "known"})
    with pytest.raises(ConformanceError, match="expected to fail: known"):
        check_transformation(mended, checks=[name])


def test_iterating():
    checks = list(iter_checks(Spec("sgd", sgd), checks=["pure", "chain"]))
    assert list(map(repr, checks)) == ["sgd-pure", "sgd-chain"]
    assert [check().status for check in checks] == ["passed", "passed"]
    (check,) = iter_checks(one_leaf, checks=["updates_match_parameters"])
    with pytest.raises(ConformanceError, match="one_leaf breaks"):
        check()
    assert {check.name for check in iter_checks(sgd, slow=True)} == set(CHECKS)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"spec": sgd, "checks": ["x"]}, ValueError, "`checks` must be among .*'x'"),
        (
            {"spec": Spec("sgd", sgd, expected_failures={"x": ""})},
            ValueError,
            "`expected_failures` must be among state_is.*; got 'x'",
        ),
        ({"spec": optax.sgd(0.1)}, TypeError, r"such as `lambda: optax.adam\(1e-3\)`"),
        ({"spec": sgd, "on_fail": "stop"}, ValueError, "`on_fail` must be 'raise' or"),
        ({"spec": lambda: 3}, ConformanceError, "must return a transformation.*got 3"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        check_transformation(**arguments)


class MuteError(Exception):
    """Has no text."""

    def __str__(self):
        raise ValueError("no text")


def exits():
    sys.exit(3)


def mute():
    raise MuteError


@pytest.mark.parametrize(
    ("make", "message"), [(exits, "SystemExit: 3"), (mute, "MuteError")]
)
def test_a_factory_that_ends_oddly_fails(make, message):
    (result,) = check_transformation(make, checks=["pure"], on_fail="collect")
    assert (result.status, result.message) == ("failed", message)


def every_third(learning_rate=0.1):
    """Counts modulo 3, which never reaches the end of the counter."""

    def update(updates, count, params=None):
        skip = count % 3 == 2
        moved = jax.tree.map(lambda g: jnp.where(skip, 0, -learning_rate) * g, updates)
        return moved, (count + 1) % 3

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def on_the_host():
    """Computes its updates in NumPy, which `jax.export` cannot serialize."""

    def negative(leaf):
        shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        return jax.pure_callback(np.negative, shape, leaf, vmap_method="sequential")

    return optax.stateless(lambda updates, params: jax.tree.map(negative, updates))


@pytest.mark.parametrize(
    ("make", "check", "status"),
    [
        (every_third, "count_at_its_end", "not applicable"),
        (optax.set_to_zero, "sharding_is_kept", "passed"),
        (on_the_host, "compiles_before_other_transformations", "not applicable"),
    ],
)
def test_unusual_transformations_are_no_failures(make, check, status):
    (result,) = check_transformation(make, checks=[check])
    assert result.status == status


def test_limits_are_held():
    names = ["state_bytes", "temporary_bytes"]
    adam = {"make": optax.adam, "hyperparameters": {"learning_rate": 0.1}}
    state, temporary = check_transformation(Spec("adam", **adam), checks=names)
    assert (state.message, temporary.message[-15:]) == (
        "8 B per parameter",
        "B per parameter",
    )
    tight = Spec("adam", **adam, max_state_bytes=7)
    with pytest.raises(ConformanceError, match="at most 7 B per parameter, got 8"):
        check_transformation(tight, checks=names)


TESTS = """
import optax
from optax_extras.testing import Spec, parametrize_checks

broken = optax.stateless(lambda updates, params: updates["w"])

@parametrize_checks(
    [
        Spec("sgd", lambda: optax.sgd(0.1)),
        Spec("known", lambda: optax.sgd(0.1), expected_failures={"pure": "not so"}),
        Spec("bad", lambda: broken, expected_failures={"chain": "as it is broken"}),
    ],
    checks=["pure", "chain", "same_key_same_draw"],
)
def test_conformance(check):
    check()
"""


def test_parametrizing(tmp_path):
    path = tmp_path / "test_it.py"
    path.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider"]
    printed = subprocess.run(
        [*command, "-k", "not sgd-chain", str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    ).stdout
    assert "PASSED test_it.py::test_conformance[sgd-pure]" in printed
    assert "sgd-chain" not in printed
    assert "FAILED test_it.py::test_conformance[known-pure]" in printed
    assert "[XPASS(strict)] not so" in printed
    assert "XFAIL test_it.py::test_conformance[bad-chain]" in printed
    assert "does not support 'random'" in printed


def test_no_test_framework_is_imported():
    code = (
        "import sys, optax_extras.testing as t\n"
        "heavy = {'pytest', 'hypothesis', 'orbax', 'rich', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "t.parametrize_checks\n"
        "print('pytest' in sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed == "[]\nTrue\n"
