"""Page about tasks: its code runs in an empty folder, and its mistakes are answered."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "tasks.md"
if not PAGE.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)
TEXT = PAGE.read_text()
COMMAND = [sys.executable, "-c", "from optax_extras.cli import main; main()"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def run(line):
    """What a line of a shell prints, without warnings."""
    program, *arguments = shlex.split(line)
    start = {"python": [sys.executable, "-W", "error"], "optax-extras": COMMAND}
    command = [*start[program], *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def without_numbers(text):
    return re.sub(r"[\d.]+", "#", text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the page's files; a block without a name continues the last."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path
    for block in blocks("python"):
        if named := re.match(r"# (\w+\.py)\n", block):
            path = tmp_path / named.group(1)
        with path.open("a") as file:
            file.write(block + "\n")
    return tmp_path


@pytest.mark.slow
def test_the_code_runs_in_an_empty_folder(folder):
    tune, compare, average = (run(line) for line in blocks("sh"))
    (printed,) = blocks("text")
    assert without_numbers(tune) == without_numbers(printed)
    assert "circle" in compare
    assert re.match(r"\{'learning_rate': [\d.]+\}", average)
    pictures = {path.name for path in folder.rglob("*.png")}
    assert {"adam.png", "comparison.png"} < pictures


def test_the_mistakes_are_answered(folder):
    Path("mistakes.txt").write_text("\n".join(blocks("pycon")))
    assert run("python -m doctest -o NORMALIZE_WHITESPACE mistakes.txt") == ""
