"""Pages whose code runs in an empty folder, prints what they say, and fails as told."""

import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
if not DOCS.exists():
    pytest.skip("needs the repository's documents", allow_module_level=True)
TASKS = (DOCS / "tasks.md").read_text()
TRAINING = (DOCS / "training.md").read_text()
# Pages whose every file is run by a command behind it.
PAGES = {
    name: (DOCS / f"{name}.md").read_text()
    for name in ("communication", "local_updates", "memory")
}
COMMAND = [sys.executable, "-c", "from optax_extras.cli import main; main()"]
# Commands, and behind some of them what they print.
RUNS = re.compile(
    r"^```sh\n(.*?)^```$(?:\n\n(prints[^`]*)(?:`([^`\n]+)`|```text\n(.*?)^```$))?",
    re.DOTALL | re.MULTILINE,
)


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def start(line):
    """The process of a line of a shell, in which warnings are errors."""
    program, *arguments = shlex.split(line)
    begin = {"python": [sys.executable, "-W", "error"], "optax-extras": COMMAND}
    command = [*begin[program], *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run(lines):
    """What lines print that run at the same time, such as on two hosts."""
    processes = [start(line) for line in lines.splitlines()]
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return "".join(printed)


def without_numbers(text):
    return re.sub(r"[\d.]+", "#", text)


def check_printed(found):
    """Runs commands, and compares what they print; numbers too, unless they vary."""
    lines, sentence, short, long = found
    printed = run(lines)
    if "other" in sentence:
        assert without_numbers(printed) == without_numbers(long)
    elif sentence:
        assert printed == (long or f"{short}\n")
    return printed


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a page's files; a block without a name continues the last."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        path = tmp_path
        for block in blocks(text, "python"):
            if named := re.match(r"# (\w+\.py)\n", block):
                path = tmp_path / named.group(1)
            with path.open("a") as file:
                file.write(block + "\n")
        return tmp_path

    return write


@pytest.mark.slow
def test_the_code_about_tasks_runs(write):
    folder = write(TASKS)
    runs = (check_printed(found) for found in RUNS.findall(TASKS))
    _, compare, _, average = runs
    assert "circle" in compare
    assert re.match(r"\{'learning_rate': [\d.]+\}", average)
    pictures = {path.name for path in folder.rglob("*.png")}
    assert {"adam.png", "comparison.png"} < pictures


def test_mistakes_in_tasks_are_answered(write):
    write(TASKS)
    Path("mistakes.txt").write_text("\n".join(blocks(TASKS, "pycon")))
    assert run("python -m doctest -o NORMALIZE_WHITESPACE mistakes.txt") == ""


@pytest.mark.slow
def test_the_training_step_runs_and_resumes(write, monkeypatch):
    folder = write(TRAINING)
    monkeypatch.setenv("OPTAX_EXTRAS_SHORT", "1")
    for found in RUNS.findall(TRAINING):
        check_printed(found)
    made = {path.name for path in folder.iterdir()}
    assert {"guarded.csv", "training.png", "log.csv", "log.jsonl"} < made


def name_of(found):
    """That of the file that a command runs, or the command."""
    file = re.match(r"python (\w+)\.py", found[0])
    return file[1] if file else " ".join(found[0].split()[:2])


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_file_of_a_page_is_run(page):
    named = re.findall(r"^```python\n# (\w+)\.py$", page, re.MULTILINE)
    run_by_name = map(name_of, RUNS.findall(page))
    assert [name for name in run_by_name if "optax-extras" not in name] == named


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "found"),
    [
        pytest.param(page, found, id=name_of(found))
        for page in PAGES.values()
        for found in RUNS.findall(page)
    ],
)
def test_the_code_of_a_page_runs(page, found, write):
    write(page)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    lines, *printed = found
    printed = check_printed((lines.replace("8476", str(port)), *printed))
    if name_of(found) == "hosts":
        assert len(set(re.findall(r"host [01] of 2: loss ([\d.]+)", printed))) == 1
