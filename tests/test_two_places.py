"""A new algorithm is its module and its test file: nothing else needs an edit."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COPIED = ("optax_extras", "tests", "docs/table.py", "README.md", "pyproject.toml")
if not all((ROOT / name).exists() for name in COPIED):
    pytest.skip("needs the repository's files", allow_module_level=True)

MODULE = '''
"""A toy: SGD whose trace never decays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class ScaleByToyState(NamedTuple):
    """State of `scale_by_toy`."""

    total: optax.Updates  # sum of all gradients; the parameters' shapes


def scale_by_toy() -> optax.GradientTransformationExtraArgs:
    """Replaces the gradient by the sum of all gradients.

    References:
      Toy et al. 1999, "A Toy", arXiv 9901.00001
    """

    def init(params: optax.Params) -> ScaleByToyState:
        return ScaleByToyState(jax.tree.map(jnp.zeros_like, params))

    def update(
        updates: optax.Updates,
        state: ScaleByToyState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByToyState]:
        del params, extra_args
        total = jax.tree.map(jnp.add, state.total, updates)
        return total, ScaleByToyState(total)

    return optax.GradientTransformationExtraArgs(init, update)


def toy(learning_rate: float) -> optax.GradientTransformationExtraArgs:
    """Descends along the sum of all gradients."""
    return optax.chain(scale_by_toy(), optax.scale(-learning_rate))
'''

TESTS = '''
"""The toy against its oracle."""

import jax.numpy as jnp

import optax_extras as ox

from specs import spec

SPECS = [
    spec(ox.scale_by_toy, buffers=1),
    spec(ox.toy, learning_rate=0.1, buffers=1),
]


def test_oracle():
    tx = ox.scale_by_toy()
    state = tx.init(jnp.zeros(2))
    for t in range(3):
        updates, state = tx.update(jnp.ones(2), state)
        assert updates.tolist() == [t + 1, t + 1]
'''

PROGRAM = """
import runpy
import sys

import pytest

import optax_extras
from optax_extras.cli import main

print(optax_extras.__file__)
pytest.main(sys.argv[1:])
runpy.run_path("docs/table.py", run_name="__main__")
sys.argv = ["optax-extras", "list"]
main()
"""
PYTEST = ("-n0", "-v", "-p", "no:cacheprovider", "tests/test_conformance.py", "-k")


@pytest.fixture
def tree(tmp_path):
    """A copy of the repository."""
    for name in COPIED:
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, target, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target)
    return tmp_path


def add_module(tree):
    """The first place: a module, and its names in the family's `__all__`."""
    family = tree / "optax_extras" / "momentum"
    (family / "_toy.py").write_text(MODULE.lstrip())
    names = ("ScaleByToyState", "scale_by_toy", "toy")
    package = family / "__init__.py"
    text = package.read_text().replace(
        "\n__all__ = [\n",
        f"from optax_extras.momentum._toy import {', '.join(names)}\n"
        "\n__all__ = [\n" + "".join(f'    "{name}",\n' for name in names),
    )
    package.write_text(text)


def run(tree, *arguments):
    """What Python prints in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ).stdout


@pytest.mark.slow
def test_a_module_and_a_test_file_are_enough(tree):
    add_module(tree)
    (tree / "tests" / "momentum" / "test_toy.py").write_text(TESTS.lstrip())
    chosen = "test_oracle or toy and (masked or donation) or every_transformation"
    printed = run(tree, "-c", PROGRAM, *PYTEST, chosen, "tests/momentum/test_toy.py")
    # Exported: `toy` is built from the root's names.
    assert printed.startswith(str(tree / "optax_extras")), printed
    # Tested, and checked by the conformance suite.
    checks = ("masked", "donation")
    ran = [f"[{name}-{check}]" for name in ("scale_by_toy", "toy") for check in checks]
    for name in ("test_oracle", "every_transformation_is_in_the_table", *ran):
        assert re.search(rf"{re.escape(name)}\S* PASSED", printed), (name, printed)
    # Listed, and in the README's table.
    assert re.search(r"scale_by_toy\n.*\n +Toy et al. 1999", printed), printed
    table = (tree / "README.md").read_text()
    paper = "Toy et al. 1999, [9901.00001](https://arxiv.org/abs/9901.00001)"
    summary = "Replaces the gradient by the sum of all gradients"
    assert f"| `scale_by_toy` | {summary} | {paper} | 4 B |" in table
    assert "| `toy` | Descends along the sum of all gradients |" in table


@pytest.mark.slow
def test_a_module_without_specs_is_noticed(tree):
    add_module(tree)
    printed = run(tree, "-m", "pytest", *PYTEST, "every_transformation")
    assert re.search(r"test_every_transformation\S* FAILED", printed), printed
