"""Which module imports which: no circles, and arrows that run one way."""

import subprocess
import sys
from pathlib import Path

import pytest

import optax_extras as ox

from imports import cycle, import_graph, wrong_arrows
from specs import families

FAMILIES = families()
BASE = {"_core", "typing"}
# Public packages whose names are not at the root.
PARTS = {"codecs", "compressors", "metrics"}
LIBRARY = BASE | {"", *PARTS, *FAMILIES}
TOOLS = {"tasks", "testing", "tuning"}
# From each part of the package, "" being its root, to the parts that it may import.
LAYERS = {
    "typing": BASE,
    "_core": BASE,
    **dict.fromkeys(PARTS, BASE),
    **dict.fromkeys(FAMILIES, BASE | PARTS | {*FAMILIES}),
    "": {*PARTS, *FAMILIES, *TOOLS},
    "tasks": LIBRARY,
    "tuning": LIBRARY | {"tasks"},
    "testing": LIBRARY | {"tasks"},
    "cli": LIBRARY | TOOLS,
}
GRAPH = import_graph(Path(ox.__file__).parent)


def test_there_are_no_circles():
    assert cycle(GRAPH) == []


def test_arrows_run_one_way():
    assert wrong_arrows(GRAPH, LAYERS, FAMILIES) == []


HEAVY = ("matplotlib", "sklearn", "typer", "rich", "pytest", "flax")
USES_THE_TOOLS = f"""
import sys, optax_extras as ox
heavy = {HEAVY}
tools = [f"optax_extras.{{name}}" for name in {sorted(TOOLS)}]
assert not {{*heavy, *tools}} & sys.modules.keys()
assert {TOOLS} <= set(dir(ox)) and "noisy_sgd" in dir(ox)
assert not {{*heavy, *tools}} & sys.modules.keys()  # nor does `dir` import them
ox.tasks.quadratic, ox.testing.Spec, ox.tuning.sweep
assert ox.tuning is sys.modules["optax_extras.tuning"]
assert not set(heavy) & sys.modules.keys()
"""


def test_importing_stays_light_and_tools_come_at_first_use():
    subprocess.run([sys.executable, "-c", USES_THE_TOOLS], check=True)


def test_an_unknown_attribute_is_refused():
    with pytest.raises(AttributeError, match="'optax_extras' has no attribute 'tunin'"):
        ox.tunin  # noqa: B018  # the access is the test


def test_type_checkers_see_the_tools():
    assert GRAPH[""] >= TOOLS


GOOD = {
    "__init__.py": "from house.noise import *\n",
    "typing.py": "import jax\n",
    "_core/leaves.py": "from house.typing import Scalar\n",
    "noise/__init__.py": "from house.noise._decayed import decayed\n",
    "noise/_decayed.py": "from house._core import leaves\nfrom house import momentum\n",
    "momentum/__init__.py": "from house.momentum._trace import trace\n",
    "momentum/_trace.py": "from house._core.leaves import zeros\n",
    "tasks/__init__.py": "import house\n",
    "tuning/__init__.py": "from house import tasks\nfrom . import _plots\n",
    "tuning/_plots.py": "import matplotlib\n",
    "cli/__init__.py": "def main():\n    from house.tuning import sweep\n",
}
LATE = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}\n"


@pytest.fixture
def house(tmp_path):
    """Makes a small package and returns the graph of its imports."""

    def build(**changed):
        for name, text in {**GOOD, **changed}.items():
            path = tmp_path / "house" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return import_graph(tmp_path / "house")

    return build


def wrong(graph):
    """The wrong arrows of a small package with two families."""
    two = {"noise", "momentum"}
    layers = {**LAYERS, "": two}
    return wrong_arrows(graph, layers, two)


def test_a_good_house(house):
    graph = house()
    assert cycle(graph) == wrong(graph) == []
    assert graph["noise._decayed"] == {"_core.leaves", "momentum"}
    assert graph["tuning"] == {"tasks", "tuning._plots"}
    assert graph["cli"] == {"tuning"}


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("typing.py", "from house._core import leaves\n"),
        ("typing.py", LATE.format("from house._core.leaves import zeros")),
        ("typing.py", "def late():\n    import house._core.leaves\n"),
        ("momentum/_trace.py", "from house import momentum\n"),
        ("momentum/_trace.py", "from . import trace\n"),
        ("momentum/_trace.py", "from house.noise import decayed\n"),
        ("tuning/_plots.py", "from house import tuning\n"),
    ],
)
def test_a_circle_is_found(house, module, text):
    assert len(cycle(house(**{module: text}))) > 1


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        ("noise/_decayed.py", "from house import tuning", "noise._decayed imports t"),
        ("noise/_decayed.py", "import house", "imports the package"),
        ("noise/_decayed.py", "from house.momentum import _trace", "momentum._trace"),
        ("noise/_decayed.py", "from house.momentum._trace import t", "momentum._trace"),
        ("_core/leaves.py", LATE.format("from house import noise"), "leaves imports n"),
        (
            "typing.py",
            "def f():\n    from house.noise import decayed",
            "typing imports",
        ),
        ("tasks/__init__.py", "from house.tuning import sweep", "tasks imports tuning"),
        ("testing/__init__.py", "from house import tuning", "testing imports tuning"),
        ("tuning/__init__.py", "from house import testing", "tuning imports testing"),
        ("tuning/__init__.py", "from house.cli import main", "tuning imports cli"),
        ("tuning/__init__.py", "from ..cli import main", "tuning imports cli"),
        ("__init__.py", "from house import cli", "the package imports cli"),
        ("typing.py", "from jax._src.typing import A", "typing imports jax._src"),
        ("typing.py", "import optax._src.base", "typing imports optax._src.base"),
        ("_helpers.py", "", "_helpers has no layer"),
    ],
)
def test_a_wrong_arrow_is_found(house, module, text, message):
    changed = {"testing/__init__.py": "", module: text}
    (found,) = wrong(house(**changed))
    assert message in found
