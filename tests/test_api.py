"""The public surface: names, documentation, examples, imports."""

import ast
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

from specs import SPECS

ROOT = Path(__file__).parent.parent
MODULES = sorted(m.name for m in pkgutil.walk_packages(ox.__path__, "optax_extras."))
FUNCTIONS = [n for n in ox.__all__ if inspect.isfunction(getattr(ox, n))]
FAMILIES = ("adaptive", "momentum", "noise", "schedules")
in_repository = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="needs the repository's files"
)


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_everything_public_is_exported():
    public = {name for name in vars(ox) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(ox, name))}
    assert public - modules == set(ox.__all__)
    for family in FAMILIES:
        names = {
            name
            for name, value in vars(
                importlib.import_module(f"optax_extras.{family}")
            ).items()
            if not name.startswith("_") and not inspect.ismodule(value)
        }
        assert names <= set(ox.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_documentation_has_every_section(name):
    function = getattr(ox, name)
    text = inspect.getdoc(function)
    arguments = list(inspect.signature(function).parameters)
    for section in ("Args:", "Returns:", "Raises:", "Examples:"):
        assert section in text, section
    documented = re.findall(r"^  (\w+): ", text.split("Args:")[1], re.MULTILINE)
    assert documented[: len(arguments)] == arguments
    if name != "nesterov_lookahead_params":
        assert "References:" in text


def test_every_transformation_has_a_spec():
    tested = {spec.make.func.__name__ for spec in SPECS}
    schedules = {"inverse_time_decay", "sutskever_momentum"}
    assert set(FUNCTIONS) - schedules - {"nesterov_lookahead_params"} == tested


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
def test_readme_example_of_the_conformance_suite(tmp_path):
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n([^`]*parametrize_checks.*?)```", text, re.DOTALL)
    path = tmp_path / "test_readme.py"
    path.write_text(code)
    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(path))
    assert re.search(r"\d+ passed, \d+ skipped, 1 xfailed", printed), printed


@in_repository
def test_readme_example_of_a_sweep(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n([^`]*sweep\(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    assert re.match(r"\{'learning_rate': [\d.]+\} \d+ of 45", run("-c", code))
    assert (tmp_path / "sweep.png").exists()


@in_repository
def test_changelog_has_an_unreleased_section():
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_stays_light():
    heavy = ("matplotlib", "sklearn", "typer", "rich", "pytest", "flax")
    code = f"import sys, optax_extras; print([m for m in {heavy} if m in sys.modules])"
    assert run("-c", code).strip() == "[]"


def test_factories_do_not_start_a_backend():
    code = (
        "import jax, optax_extras as ox\n"
        "ox.noisy_sgd(0.1, key=0); ox.adasmooth(0.1); ox.momentum_sgd(0.1)\n"
        "jax.config.update('jax_num_cpu_devices', 3)\n"
        "print(jax.device_count())"
    )
    assert run("-c", code).strip() == "3"


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_arrows_run_one_way():
    package = Path(ox.__file__).parent
    for path in package.rglob("*.py"):
        layer = path.relative_to(package).parts[0]
        for name in imports_of(path):
            assert "_src" not in name, (path, name)
            if layer in FAMILIES:
                others = {*FAMILIES, "tuning", "testing", "cli"} - {layer}
                assert not any(
                    name.startswith(f"optax_extras.{other}") for other in others
                ), (path, name)
            if layer in ("tuning", "testing"):
                other = {"tuning": "testing", "testing": "tuning"}[layer]
                for above in ("cli", other):
                    assert not name.startswith(f"optax_extras.{above}"), (path, name)
