"""Executes the notebooks' sources, and writes them with their outputs.

``python colab/build.py`` rebuilds all of them and the README's pictures, and ``python
colab/build.py momentum`` one of them.
"""

import argparse
import base64
import os
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat

HERE = Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in (HERE / "src").glob("*.py"))
PICTURES = HERE.parent / "docs" / "images"
METADATA = {
    "colab": {"provenance": []},
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}
# The kernel's own machinery may warn; what a cell calls may not.
STRICT = """\
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="ipykernel")
"""


def read(name: str) -> Any:
    """A notebook as its source has it; nothing in it depends on time or place."""
    notebook = jupytext.read(HERE / "src" / f"{name}.py", fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{number}"
    return notebook


def execute(name: str, short: bool = False) -> Any:
    """The notebook after it ran in a fresh kernel.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell failed or warned.
      RuntimeError: a cell wrote to stderr.
    """
    notebook = read(name)
    strict = nbformat.v4.new_code_cell(STRICT)
    notebook.cells.insert(0, strict)
    kept = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "XLA_FLAGS")}
    settings = {"JAX_PLATFORMS": "cpu", "OPTAX_EXTRAS_SHORT": str(int(short))}
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": HERE}},
    )
    client.execute(env=kept | settings)
    notebook.cells.remove(strict)
    notebook.metadata = nbformat.from_dict(METADATA)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        cell.execution_count = number
        for output in cell.outputs:
            if output.get("name") == "stderr":
                raise RuntimeError(f"{name}, cell {number}, wrote {output.text!r}")
            if "execution_count" in output:
                output.execution_count = number
    return notebook


def pictures(notebook: Any) -> dict[str, bytes]:
    """The figures of the cells whose metadata name a picture; name to PNG."""
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "picture" in cell.metadata and "image/png" in output.get("data", {}):
                png = base64.b64decode(output.data["image/png"])
                found[cell.metadata["picture"]] = png
    return found


def main() -> None:
    """Rebuilds what is committed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    for name in parser.parse_args().names or NAMES:
        notebook = execute(name)
        nbformat.write(notebook, HERE / f"{name}.ipynb")
        for picture, png in pictures(notebook).items():
            (PICTURES / f"{picture}.png").write_bytes(png)


if __name__ == "__main__":
    main()
