"""`optax-extras check`."""

import json
import subprocess
import sys

import pytest

MINE = """
import jax, optax
from optax_extras.testing import Spec

def healthy(learning_rate, nesterov=False):
    return optax.sgd(learning_rate, momentum=0.9, nesterov=nesterov)

def broken(scale=2):
    return optax.stateless(lambda updates, params: updates["w"])

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
        env={"COLUMNS": "150", "PATH": "", "JAX_PLATFORMS": "cpu"},
    )


def test_a_healthy_transformation(folder):
    result = check(
        folder,
        "mine:healthy",
        *("--arg", "learning_rate=0.1", "--arg", "nesterov=True"),
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
    result = check(folder, "mine:broken")
    assert result.returncode == 1, result.stderr
    assert "updates_match_parameters" in result.stdout
    assert "the updates at ['b']: expected a leaf" in result.stdout
    assert "return one array of the parameter's shape" in result.stdout
    assert "init_accepts_abstract_values" not in result.stdout


def test_json(folder):
    result = check(folder, "mine:Namespace.SPEC", "--json")
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
        (["mine"], "'mine' is not of the form MODULE:ATTRIBUTE"),
        (["mine:absent"], "cannot load 'mine:absent': .*no attribute 'absent'"),
        (["absent:x"], "cannot load 'absent:x': No module named 'absent'"),
        (["mine:healthy"], "cannot make 'mine:healthy': .*learning_rate"),
        (["mine:healthy", "--arg", "x"], "'x' is not of the form name=value"),
        (["mine:broken", "--supports", "x"], "`supports` must be among .*got 'x'"),
        (["mine:Namespace.SPEC", "--arg", "x=1"], "takes no further arguments"),
        ([], "give MODULE:FACTORY or --all-of, one of the two"),
        (["--all-of", "absent"], "cannot import 'absent'"),
        (["--all-of", "mine", "--arg", "x=1"], "go with MODULE:FACTORY"),
        (["--all-of", "json"], "'json' has no optimizer that takes a learning rate"),
    ],
)
def test_bad_usage_is_one_line(folder, arguments, message):
    import re

    result = check(folder, *arguments)
    assert result.returncode == 2
    assert re.search(message, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


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
    result = check(folder, "--all-of", "family")
    assert result.returncode == 1, result.stderr
    assert "1 one  2 two" in result.stdout
    assert "updates_match_parameters" in result.stdout
    row = next(x for x in result.stdout.splitlines() if "updates_match" in x)
    assert row.index("✓") < row.index("✗")
