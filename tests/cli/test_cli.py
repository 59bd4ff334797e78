"""The command as a user meets it: output, files, errors, Ctrl-C."""

import csv
import signal
import subprocess
import sys
import time

import pytest

import optax_extras as ox
from optax_extras.cli import _report, main
from optax_extras.cli._optimizers import OPTIMIZERS


def invoke(monkeypatch, *arguments):
    """Runs the command in this process and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["optax-extras", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    return exit_info.value.code or 0


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_default_comparison_reaches_95_percent(monkeypatch, capsys, tmp_path):
    started = time.monotonic()
    assert invoke(monkeypatch, "compare", "--out", str(tmp_path / "new" / "dir")) == 0
    assert time.monotonic() - started < 600  # a hang, not a speed
    output = capsys.readouterr().out
    folder = tmp_path / "new" / "dir"
    summary = rows(folder / "summary.csv")
    assert [row["optimizer"] for row in summary] == list(OPTIMIZERS)
    for row in summary:
        assert float(row["test_accuracy"]) >= 0.95, row
        assert float(row["train_loss"]) < 0.1
        assert row["optimizer"] in output
    sizes = {r["optimizer"]: float(r["state_bytes_per_parameter"]) for r in summary}
    assert sizes["sgd"] == 0
    assert sizes["adam"] == pytest.approx(8, abs=0.01)
    assert sizes["adasmooth"] == pytest.approx(12, abs=0.01)
    curves = rows(folder / "curves.csv")
    assert len(curves) == 51 * len(OPTIMIZERS)
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder.name) in output


@pytest.mark.parametrize("size", ["1", "64", "full"])
def test_options_reach_the_run(monkeypatch, tmp_path, size):
    arguments = "--optimizer adam --optimizer sgd --optimizer adam --steps 20 --seed 1"
    options = f"--learning-rate 0.01 --clip 0.5 --batch-size {size} --out {tmp_path}"
    assert invoke(monkeypatch, "compare", *arguments.split(), *options.split()) == 0
    summary = rows(tmp_path / "summary.csv")
    assert [row["optimizer"] for row in summary] == ["adam", "sgd"]
    assert {row["learning_rate"] for row in summary} == {"0.01"}
    assert {row["steps"] for row in summary} == {"20"}
    assert {row["batch_size"] for row in summary} == {size}
    assert {(row["seed"], row["clip"]) for row in summary} == {("1", "0.5")}


def losses(monkeypatch, folder, *options):
    arguments = ("compare", "--optimizer", "noisy-sgd", "--steps", "20")
    invoke(monkeypatch, *arguments, "--out", str(folder), *options)
    return [row["train_loss"] for row in rows(folder / "curves.csv")]


def test_seed_and_clip_change_the_run_and_nothing_else_does(monkeypatch, tmp_path):
    base = losses(monkeypatch, tmp_path)
    assert losses(monkeypatch, tmp_path) == base
    assert losses(monkeypatch, tmp_path, "--seed", "1")[0] != base[0]
    clipped = losses(monkeypatch, tmp_path, "--clip", "0.01")
    assert clipped[0] == base[0]
    assert clipped[-1] != base[-1]


def test_a_diverged_run_is_shown(monkeypatch, capsys, tmp_path):
    options = ("--optimizer", "momentum", "--steps", "50", "--learning-rate", "1e20")
    assert invoke(monkeypatch, "compare", *options, "--out", str(tmp_path)) == 0
    assert "diverged" in capsys.readouterr().out
    assert rows(tmp_path / "summary.csv")[0]["train_loss"] == "nan"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "compare --optimizer foo",
            "'foo' is not one of 'sgd', 'noisy-sgd', 'momentum'",
        ),
        ("compare --batch-size 0", "`batch_size` must be in [1, 1347], got 0"),
        ("compare --batch-size 1348", "`batch_size` must be in [1, 1347], got 1348"),
        ("compare --batch-size ten", "'ten' is neither a positive integer nor 'full'"),
        ("compare --steps 0", "'--steps'"),
        ("compare --steps x", "'--steps'"),
        ("compare --learning-rate nan", "nan is not a finite number >= 0"),
        ("compare --learning-rate -1", "-1.0 is not a finite number >= 0"),
        ("compare --clip 0", "0.0 is not a finite number > 0"),
        ("compare --clip inf", "inf is not a finite number > 0"),
        ("compare --seed -1", "'--seed'"),
        ("compare --out /dev/null/x", "'--out': cannot write to /dev/null/x"),
        ("compare --bogus", "--bogus"),
        ("frobnicate", "No such command 'frobnicate'"),
    ],
)
def test_bad_values_are_one_line_and_exit_code_2(
    monkeypatch, capsys, arguments, message
):
    assert invoke(monkeypatch, *arguments.split()) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_a_bad_value_leaves_no_folder(monkeypatch, tmp_path):
    folder = tmp_path / "new"
    invoke(monkeypatch, "compare", "--batch-size", "ten", "--out", str(folder))
    assert not folder.exists()


def test_no_arguments_show_the_help(monkeypatch, capsys):
    invoke(monkeypatch)
    captured = capsys.readouterr()
    assert "compare" in captured.out + captured.err
    assert "optax-extras: " not in captured.err


def test_an_interrupt_while_writing_counts_as_one(monkeypatch, capsys, tmp_path):
    write = _report.write

    def interrupted(runs, *rest):
        if len(runs) == 2:
            raise KeyboardInterrupt
        return write(runs, *rest)

    monkeypatch.setattr(_report, "write", interrupted)
    options = ["--steps", "2", "--optimizer", "sgd", "--optimizer", "adam", "--out"]
    assert invoke(monkeypatch, "compare", *options, str(tmp_path)) == 130
    assert "interrupted; finished: sgd" in capsys.readouterr().err
    assert [row["optimizer"] for row in rows(tmp_path / "summary.csv")] == ["sgd"]


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax_extras.cli._app", None)
    monkeypatch.setattr(sys, "argv", ["optax-extras"])
    with pytest.raises(SystemExit, match=r"pip install 'optax-extras\[cli\]'"):
        main()


def test_list_shows_every_function(monkeypatch, capsys):
    assert invoke(monkeypatch, "list") == 0
    output = capsys.readouterr().out
    for name in ox.__all__:
        if not name.endswith("State"):
            assert name in output
    assert "1511.06807" in output


def test_interrupt_keeps_what_was_finished(tmp_path):
    command = "compare --steps 30000 --optimizer sgd --optimizer adam --batch-size 8"
    # A shell's background jobs start with SIGINT ignored, which children inherit.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from optax_extras.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command.split(), "--out", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "loss.png").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted; finished: sgd" in errors
    assert "Traceback" not in errors
    assert "sgd" in output
    assert [row["optimizer"] for row in rows(tmp_path / "summary.csv")] == ["sgd"]
