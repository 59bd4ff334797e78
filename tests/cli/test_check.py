"""`optax-extras check`."""

import json
import os
import re
import subprocess
import sys

import pytest

from optax_extras.cli import main

MINE = """
import jax, optax
from optax_extras.testing import Spec

def healthy(learning_rate, nesterov=False):
    return optax.sgd(learning_rate, momentum=0.9, nesterov=nesterov)

def broken(scale=2):
    return optax.stateless(lambda updates, params: updates["w"])

def nonsense():
    return 3

def raises():
    raise RuntimeError("boom\\nmore")

class Namespace:
    SPEC = Spec("named", lambda: broken(), expected_failures={"masked": "known"})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a stranger's module."""
    path = tmp_path_factory.mktemp("stranger")
    (path / "mine.py").write_text(MINE)
    return path


def check(folder, *arguments):
    code = "import sys; from optax_extras.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "check", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={
            "COLUMNS": "150",
            "PATH": "",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "JAX_PLATFORMS": "cpu",
        },
    )


@pytest.mark.slow
def test_a_healthy_transformation(folder):
    result = check(
        folder,
        "mine:healthy(learning_rate=0.1, nesterov=True)",
        *("--supports", "descent", "--verbose"),
    )
    assert "descends_rosenbrock" in result.stdout
    assert "many_devices_equal_one" in result.stdout
    assert "there is one device" not in result.stdout
    # Of optax's own momentum these are known.
    assert "△ 3 advice not followed" in result.stdout
    assert "none_gradient" in result.stdout
    assert "broken contracts" not in result.stdout
    assert result.returncode == 0


def test_a_broken_transformation(folder):
    names = ("updates_match_parameters", "init_accepts_abstract_values")
    result = check(folder, "mine:broken", "--only", names[0], "--only", names[1])
    assert result.returncode == 1, result.stderr
    assert "2 checks" in result.stdout
    assert "updates_match_parameters" in result.stdout
    assert "the updates at ['b']: expected a leaf" in result.stdout
    assert "return one array of the parameter's shape" in result.stdout
    assert "init_accepts_abstract_values" not in result.stdout


def test_json(folder):
    names = ("masked", "updates_match_parameters", "pure")
    only = [word for name in names for word in ("--only", name)]
    result = check(folder, "mine:Namespace.SPEC", "--json", *only)
    rows = {row["check"]: row for row in json.loads(result.stdout)}
    assert result.returncode == 1
    assert rows["masked"]["status"] == "expected failure"
    assert rows["updates_match_parameters"]["status"] == "failed"
    assert set(rows["pure"]) == {
        "transformation",
        "check",
        "severity",
        "status",
        "message",
        "seconds",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine"], "`target` must be MODULE:ATTRIBUTE or one of .*; got 'mine'"),
        (["mine:absent"], "cannot load 'mine:absent': .*no attribute 'absent'"),
        (["absent:x"], "cannot load 'absent:x': No module named 'absent'"),
        (["mine:healthy"], "'mine:healthy' needs `learning_rate`"),
        (["mine:healthy(learning_rate=abc)"], "must be a Python literal"),
        (["mine:healthy(learning_rate='abc')"], "cannot run .*: TypeError: "),
        (["mine:healthy(lr=0.1)"], "does not take `lr`; it takes `learning_rate`"),
        (["mine:nonsense"], "cannot run 'mine:nonsense': TypeError: .* got 3"),
        (["mine:raises"], "cannot run 'mine:raises': RuntimeError: boom$"),
        (["mine:broken", "--expect", "pure"], "'pure' is not of the form"),
        (["mine:broken", "--expect", "pur=x"], "called 'pur'; did you mean 'pure'?"),
        (["mine:broken", "--expect", "y.pure=x"], "'y' is not checked"),
        (["mine:broken", "--only", "pur"], "called 'pur'; did you mean 'pure'?"),
        (["mine:broken", "--supports", "x"], "`supports` must be among .*got 'x'"),
        (["mine:Namespace.SPEC(x=1)"], "takes no further arguments"),
        ([], "give a TARGET or --all-of, one of the two"),
        (["--all-of", "absent"], "cannot import 'absent'"),
        (["--all-of", "mine", "--supports", "x"], "goes with a TARGET"),
        (["--all-of", "json"], "'json' has no function that takes `learn"),
    ],
)
def test_bad_usage_is_one_line(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["optax-extras", "check", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err), captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_all_of_a_module(folder):
    (folder / "family.py").write_text(
        "import jax, optax\n"
        "from optax import GradientTransformation\n"
        "def one(learning_rate: jax.Array) -> GradientTransformation:\n"
        "    return optax.sgd(learning_rate)\n"
        "def two(learning_rate: float) -> GradientTransformation:\n"
        "    return optax.stateless(lambda g, p: g['w'])\n"
        "def not_one(x): return x\n"
    )
    known = "inject_float32_hyperparams_on_bfloat16"
    names = ["updates_match_parameters", "pure", known]
    only = [word for name in names for word in ("--only", name)]
    expected = ("--expect", f"one.{known}=known", "--verbose")
    result = check(folder, "--all-of", "family", *only, *expected)
    assert result.returncode == 1, result.stderr
    assert "not_one" not in result.stdout
    one, two, found = re.split(r"^two$", result.stdout, flags=re.MULTILINE)
    assert one.startswith("one\n")
    assert "✗" not in one
    assert "inject_float32" not in one
    assert re.search(r"✗ .*\bupdates_match_parameters\b", two)
    assert "the updates at ['b']: expected a leaf" in found
    assert "✗ updates_match_parameters" in found
    assert "x 1 expected failures" in found
    result = check(folder, "--all-of", "family", *only, "--json")
    assert [row["check"] for row in json.loads(result.stdout)] == names * 2
