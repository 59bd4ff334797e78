"""The notebooks: they run from scratch, and what is committed is what they are."""

import ast
import base64
import io
import re
import runpy
import tomllib
from pathlib import Path

import nbformat
import pytest
from matplotlib import image

ROOT = Path(__file__).parent.parent
if not (ROOT / "colab").exists():
    pytest.skip("needs the repository's notebooks", allow_module_level=True)

BUILD = runpy.run_path(str(ROOT / "colab" / "build.py"))
NAMES = ["adasmooth", "communication", "gradient_noise", "memory", "momentum"]
MACHINE_PATH = re.compile(r"/(home|root|tmp|Users|usr|opt)/|[A-Z]:\\|site-packages")
LAST_WORDS = "every claim held\n"

each_notebook = pytest.mark.parametrize("name", NAMES)


def committed(name):
    return nbformat.read(ROOT / "colab" / f"{name}.ipynb", as_version=4)


def outputs_of(notebook):
    return [o for cell in notebook.cells for o in cell.get("outputs", [])]


def figures_of(notebook):
    pngs = [o.data.get("image/png") for o in outputs_of(notebook) if "data" in o]
    return [image.imread(io.BytesIO(base64.b64decode(png))) for png in pngs if png]


def test_every_notebook_is_tested():
    assert BUILD["NAMES"] == NAMES


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        # one of them every day
        pytest.param(name, marks=[pytest.mark.nightly] * (name != "gradient_noise"))
        for name in NAMES
    ],
)
def test_notebook_runs_from_scratch_without_a_warning(name, tmp_path):
    notebook = BUILD["execute"](name, short=True)
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    assert outputs_of(notebook)[-1].text == LAST_WORDS
    assert len(figures_of(notebook)) == len(figures_of(committed(name)))


@each_notebook
def test_committed_cells_are_those_of_the_source(name):
    ours, source = (
        [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]
        for notebook in (committed(name), BUILD["read"](name))
    )
    assert ours == source


@each_notebook
def test_committed_outputs_are_of_a_full_run_without_errors(name):
    outputs = outputs_of(committed(name))
    assert outputs[0].text.startswith("full mode")
    assert outputs[-1].text == LAST_WORDS
    kinds = {(o.output_type, o.get("name")) for o in outputs}
    assert kinds == {("stream", "stdout"), ("display_data", None)}
    texts = [
        o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in outputs
    ]
    assert not MACHINE_PATH.search("\n".join(texts))


@each_notebook
def test_figures_have_an_opaque_light_page(name):
    figures = figures_of(committed(name))
    assert len(figures) >= 2
    for pixels in figures:
        edge = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
        assert all((side == 1).all() for side in edge)
        assert (pixels[..., 3] == 1).all()


@each_notebook
def test_notebook_uses_public_names_only(name):
    for node in ast.walk(ast.parse((ROOT / "colab/src" / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            names = [node.attr] if isinstance(node, ast.Attribute) else []
        parts = [part for name in names for part in name.split(".")]
        assert not [part for part in parts if part.startswith("_")]


def test_one_address_of_the_repository():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = project["urls"]["Repository"]
    readme = (ROOT / "README.md").read_text()
    for name in NAMES:
        source = (ROOT / "colab/src" / f"{name}.py").read_text()
        assert f'REPOSITORY = "{address}"' in source
        path = f"{address.partition('github.com')[2]}/blob/main/colab/{name}.ipynb"
        assert f"(https://colab.research.google.com/github{path})" in readme


def test_readme_shows_the_pictures():
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r"!\[[^\]]+\]\(docs/images/([\w-]+)\.png\)", text)
    built = {k: v for n in NAMES for k, v in BUILD["pictures"](committed(n)).items()}
    assert len(shown) == 2
    assert set(shown) == set(built)
    for picture in shown:
        path = ROOT / "docs" / "images" / f"{picture}.png"
        assert path.read_bytes() == built[picture]
