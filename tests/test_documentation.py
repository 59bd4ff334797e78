"""What is public is documented, with the parameters that it has."""

import ast
import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import re
from pathlib import Path

import pytest

import optax_extras as ox

from specs import returns_a_transformation

SECTIONS = {"Args", "Attributes", "Returns", "Yields", "Raises", "Examples"}
SECTIONS |= {"References"}


def exported(module):
    """The names in `__all__`, or those that an import gives the same name again."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        alias.name
        for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]


def public():
    """The root's modules without an underscore, and what each exports."""
    names = [info.name for info in pkgutil.iter_modules(ox.__path__)]
    modules = [ox] + [
        importlib.import_module(f"optax_extras.{name}")
        for name in names
        if not name.startswith("_")
    ]
    return {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in modules
        for name in exported(module)
    }


CITATION = Path(__file__).parent.parent / "CITATION.cff"
PUBLIC = public()
CALLABLES = {n: v for n, v in PUBLIC.items() if inspect.isroutine(v)}
CLASSES = {n: v for n, v in PUBLIC.items() if inspect.isclass(v)}
DATA = PUBLIC.keys() - CALLABLES.keys() - CLASSES.keys()
ROOT = {name: getattr(ox, name) for name in ox.__all__}
FUNCTIONS = {name: v for name, v in ROOT.items() if inspect.isfunction(v)}


def sections(value):
    """From the name of each section of a docstring to its text."""
    text = inspect.getdoc(value) or ""
    parts = re.split(r"^(\w+):\n", text, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {name: body for name, body in found.items() if name in SECTIONS}


def entries(section):
    """The names at the left of a section."""
    return re.findall(r"^  \*{0,2}(\w+)(?: \([^)]*\))?: ", section, re.MULTILINE)


def problems(function):
    """What the docstring of a function leaves out, or has too much."""
    if not inspect.getdoc(function):
        return ["no docstring"]
    parameters = list(inspect.signature(function).parameters)
    documented = entries(sections(function).get("Args", ""))
    return [
        *(f"{name} is not documented" for name in parameters if name not in documented),
        *(f"{name} is no parameter" for name in documented if name not in parameters),
    ]


def test_there_is_something_to_hold():
    assert {"optax_extras.sgld", "optax_extras.testing.iter_checks"} <= set(CALLABLES)
    assert {"optax_extras.testing.Spec"} <= set(CLASSES)


@pytest.mark.parametrize("name", CALLABLES)
def test_functions_document_their_parameters(name):
    assert problems(CALLABLES[name]) == []


@pytest.mark.parametrize("name", CLASSES)
def test_classes_document_what_they_hold(name):
    value = CLASSES[name]
    assert value.__doc__, "no docstring"
    assert not value.__doc__.startswith(f"{value.__name__}("), "no docstring"
    if dataclasses.is_dataclass(value):
        fields = {f.name for f in dataclasses.fields(value) if f.name[0] != "_"}
        documented = set(entries(sections(value).get("Attributes", "")))
        assert fields <= documented, fields - documented
        own = {*fields, *dir(value)}
        assert documented <= own, documented - own
    for attribute, method in vars(value).items():
        if inspect.isroutine(method) and not attribute.startswith("_"):
            assert inspect.getdoc(method), attribute


def documented_data():
    """The names that are assigned with a comment above or a string below."""
    for path in Path(ox.__file__).parent.rglob("*.py"):
        text = path.read_text()
        yield from re.findall(r"^#.*\n(?:type )?([A-Za-z]\w*)\b.*=", text, re.MULTILINE)
        for statement, after in itertools.pairwise(ast.parse(text).body):
            if isinstance(statement, ast.Assign | ast.AnnAssign):
                (target,) = getattr(statement, "targets", None) or [statement.target]
                if isinstance(after, ast.Expr) and isinstance(target, ast.Name):
                    yield target.id


def test_data_and_types_are_documented():
    documented = set(documented_data())
    assert {name for name in DATA if name.rpartition(".")[2] not in documented} == set()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_exported_at_the_root_has_every_section(name):
    function = FUNCTIONS[name]
    needed = {"Args", "Returns", "Raises", "Examples"}
    if returns_a_transformation(function) or name in ox.schedules.__all__:
        needed.add("References")
    assert needed - sections(function).keys() == set()


def test_problems_are_found():
    def silent(rate):
        pass

    def wrong(rate, *, key):  # noqa: D417  # what is to be found
        """Does something.

        Args:
          rate: a number: any.
          seed: another.
        """

    assert problems(silent) == ["no docstring"]
    assert problems(wrong) == ["key is not documented", "seed is no parameter"]


@pytest.mark.skipif(not CITATION.exists(), reason="needs the repository's files")
def test_citation_has_the_version():
    lines = CITATION.read_text().splitlines()
    assert "cff-version: 1.2.0" in lines
    assert f"version: {ox.__version__}" in lines
