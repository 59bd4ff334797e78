"""The public surface: names, documentation, examples, imports."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import optax_extras as ox

from specs import families

ROOT = Path(__file__).parent.parent
MODULES = sorted(m.name for m in pkgutil.walk_packages(ox.__path__, "optax_extras."))
FUNCTIONS = [n for n in ox.__all__ if inspect.isfunction(getattr(ox, n))]
in_repository = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="needs the repository's files"
)


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_everything_public_is_exported():
    public = {name for name in vars(ox) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(ox, name))}
    assert public - modules - {"TYPE_CHECKING"} == set(ox.__all__)
    assert len(set(ox.__all__)) == len(ox.__all__)
    assert families()


@in_repository
def test_readme_names_every_function_and_its_example_runs():
    text = (ROOT / "README.md").read_text()
    for name in FUNCTIONS:
        assert f"`{name}`" in text, name
    example = re.search(
        r"```python\n(.*?)```\n+prints\n+```text\n(.*?)```", text, re.DOTALL
    )
    code, printed = example.groups()
    assert run("-W", "error", "-c", code) == printed


@in_repository
@pytest.mark.slow
def test_readme_example_of_the_conformance_suite(tmp_path):
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n([^`]*parametrize_checks.*?)```", text, re.DOTALL)
    path = tmp_path / "test_readme.py"
    path.write_text(code)
    chosen = ("-k", "pure or vmap or inject_float32")
    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, str(path))
    assert re.search(r"[3-9] passed, .*1 xfailed", printed), printed


@in_repository
@pytest.mark.slow
def test_readme_example_of_a_sweep(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n([^`]*sweep\(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    assert re.match(r"\{'learning_rate': [\d.]+\} \d+ of 45", run("-c", code))
    assert (tmp_path / "sweep.png").exists()


@in_repository
def test_changelog_has_an_unreleased_section():
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_factories_do_not_start_a_backend():
    code = (
        "import jax, optax_extras as ox\n"
        "ox.noisy_sgd(0.1, key=0); ox.adasmooth(0.1); ox.momentum_sgd(0.1)\n"
        "jax.config.update('jax_num_cpu_devices', 3)\n"
        "print(jax.device_count())"
    )
    assert run("-c", code).strip() == "3"
