"""The command from outside: output, files, errors, Ctrl-C."""

import csv
import dataclasses
import inspect
import json
import re
import subprocess
import sys

import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras.cli import _compare, _report, main
from optax_extras.cli._estimate import with_estimate


def invoke(monkeypatch, *arguments):
    """Runs the command in this process and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["optax-extras", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    return exit_info.value.code or 0


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_comparison_on_digits(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "new" / "dir"
    names = ["sgd", "adam", "adasmooth"]
    chosen = [word for name in names for word in ("--optimizer", name)]
    options = ["--steps", "150", "--seeds", "2", *chosen, "--out", str(folder)]
    assert invoke(monkeypatch, "compare", *options) == 0
    output = capsys.readouterr().out
    summary = rows(folder / "summary.csv")
    assert [row["optimizer"] for row in summary] == names
    for row in summary:
        assert float(row["test_accuracy"]) >= 0.94, row
        assert float(row["lowest"]) <= float(row["median"]) <= float(row["highest"])
        assert float(row["median"]) == float(row["test_loss"]) < 0.3
        assert float(row["steps_to_target"]) <= 150
        assert row["trials"] == "22"
        assert row["at_edge"] == "False"
        assert row["optimizer"] in output
    found = {row["optimizer"]: row for row in summary}
    sizes = {n: float(r["state_bytes_per_parameter"]) for n, r in found.items()}
    assert sizes["sgd"] == 0
    assert sizes["adam"] == pytest.approx(8, abs=0.01)
    assert sizes["adasmooth"] == pytest.approx(12, abs=0.01)
    assert int(found["sgd"]["diverged"]) > 0
    trials = rows(folder / "trials.csv")
    assert len(trials) == len(names) * 11 * 2 * 31
    (last,) = (
        float(row["test_loss"])
        for row in trials
        if (row["optimizer"], row["seed"], row["step"]) == ("adam", "1", "150")
        and row["learning_rate"] == found["adam"]["learning_rate"]
    )
    assert float(found["adam"]["lowest"]) <= last <= float(found["adam"]["highest"])
    assert (folder / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "Target: test loss" in output
    assert str(folder.name) in output


QUICK = (
    "compare --task quadratic --steps 20 --budget 2 --seeds 2 --min-lr 0.01"
    " --max-lr 0.1 --json"
)


def quick(monkeypatch, capsys, folder, *options):
    """What a small comparison prints as JSON."""
    arguments = (*QUICK.split(), "--out", str(folder), *options)
    assert invoke(monkeypatch, *arguments) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.daily("full")
@pytest.mark.parametrize("size", ["1", "64", "full"])
def test_options_reach_the_run(monkeypatch, capsys, tmp_path, size):
    options = "--optimizer optax:adam --optimizer sgd --clip 0.5 --task breast-cancer"
    found = quick(monkeypatch, capsys, tmp_path, *options.split(), "--batch-size", size)
    assert found["task"].startswith("breast-cancer(batch_size=")
    assert "2 learning rates × 2 seeds, 20 steps, gradients cl" in found["caption"]
    assert (found["steps"], found["seeds"]) == (20, [0, 1])
    assert found["learning_rates"] == pytest.approx([0.01, 0.1])
    assert (found["metric"], found["mode"]) == ("train_loss", "min")
    names = [one["optimizer"] for one in found["optimizers"]]
    assert names == ["optax:adam", "sgd"]
    for one in found["optimizers"]:
        assert one["at_edge"]
        assert one["trials"] == 4


def medians(found):
    return [one["median"] for one in found["optimizers"]]


@pytest.mark.slow
def test_clip_and_batch_size_change_the_runs(monkeypatch, capsys, tmp_path):
    options = ("--optimizer", "sgd", "--task", "breast-cancer")
    base = quick(monkeypatch, capsys, tmp_path, *options)
    for changed in (("--clip", "0.01"), ("--batch-size", "16")):
        other = quick(monkeypatch, capsys, tmp_path, *options, *changed)
        assert medians(other) != medians(base)


@pytest.mark.slow
def test_diverged_runs_are_shown(monkeypatch, capsys, tmp_path):
    options = ["--optimizer", "momentum", "--min-lr", "1e20", "--max-lr", "1e21"]
    found = quick(monkeypatch, capsys, tmp_path, *options)
    (one,) = found["optimizers"]
    assert (one["median"], one["steps_to_target"], one["diverged"]) == (None, None, 4)
    arguments = [x for x in QUICK.split() if x != "--json"]
    assert invoke(monkeypatch, *arguments, *options, "--out", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"diverged (?=  )", printed)) >= 3, printed
    assert "never" in printed
    assert "4/4" in printed
    assert rows(tmp_path / "summary.csv")[0]["median"] == "inf"


def test_a_task_and_an_optimizer_of_the_user(monkeypatch, capsys, tmp_path):
    (tmp_path / "own_comparison.py").write_text(
        "import optax\n"
        "from optax_extras.tuning import quadratic\n"
        "def task():\n    return quadratic(2, 10.0)\n"
        "def half(learning_rate):\n    return optax.sgd(learning_rate / 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = "--task own_comparison:task --optimizer own_comparison:half"
    found = quick(monkeypatch, capsys, tmp_path, *options.split(), "--optimizer", "sgd")
    assert found["task"] == "quadratic(dimensions=2, condition=10.0)"
    half, sgd = found["optimizers"]
    assert half["median"] > sgd["median"]


def test_a_task_of_the_user_that_cannot_be_trained(monkeypatch, capsys, tmp_path):
    (tmp_path / "own_vector.py").write_text(
        "import dataclasses\n"
        "from optax_extras.tuning import quadratic\n"
        "TASK = dataclasses.replace(quadratic(), loss=lambda x, batch, key: x)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--task", "own_vector:TASK", "--out", str(tmp_path)]
    assert invoke(monkeypatch, *QUICK.split(), *options) == 2
    captured = capsys.readouterr()
    assert "loss of task 'quadratic' must be a scalar, got shape (20,)" in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("compare --optimizer adm", "got 'adm'; did you mean 'adam'?"),
        ("compare --task foo", "`task` must be MODULE:ATTRIBUTE or one of digits"),
        ("compare --batch-size 0", "`batch_size` must be in [1, 1010], got 0"),
        ("compare --batch-size 1011", "`batch_size` must be in [1, 1010], got 1011"),
        ("compare --batch-size ten", "'ten' is neither a positive integer nor 'full'"),
        (
            "compare --task line --batch-size 1",
            "task 'line' does not take `batch_size`",
        ),
        ("compare --steps 0", "'--steps'"),
        ("compare --steps x", "'--steps'"),
        ("compare --seeds 0", "'--seeds'"),
        ("compare --budget 0", "'--budget'"),
        ("compare --min-lr nan", "nan is not a finite number > 0"),
        ("compare --max-lr 0", "0.0 is not a finite number > 0"),
        ("compare --max-lr 1e-9", "must not be above --max-lr, got 0.0001 and 1e-09"),
        ("compare --clip 0", "0.0 is not a finite number > 0"),
        ("compare --clip inf", "inf is not a finite number > 0"),
        ("compare --out /dev/null/x", "'--out': cannot write to /dev/null/x"),
        (
            "compare --optimizer optax_extras:anti_pgd",
            "'optax_extras:anti_pgd' needs `stddev`; give it in brackets",
        ),
        ("compare --optimizer adam(b1=x)", "must be a Python literal"),
        ("compare --optimizer adam(lr=1)", "'adam(lr=1)' does not take `lr`"),
        ("compare --optimizer adam(learning_rate=1)", "the command varies it"),
        ("compare --optimizer noisy-sgd(key=1)", "it comes from the seed"),
        ("compare --task digits(batch_size=8) --batch-size 8", "is given twice"),
        ("compare --task line(dimensions='x')", "does not take `dimensions`"),
        ("compare --task quadratic(dimensions='x')", 'cannot make task "quadratic('),
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

    def interrupted(comparison, *rest):
        if len(comparison.sweeps) == 2:
            raise KeyboardInterrupt
        return write(comparison, *rest)

    monkeypatch.setattr(_report, "write", interrupted)
    options = [*QUICK.split(), "--optimizer", "sgd", "--optimizer", "adam", "--out"]
    assert invoke(monkeypatch, *options, str(tmp_path)) == 130
    captured = capsys.readouterr()
    assert "interrupted; finished: sgd" in captured.err
    assert [one["optimizer"] for one in json.loads(captured.out)["optimizers"]] == [
        "sgd"
    ]
    assert [row["optimizer"] for row in rows(tmp_path / "summary.csv")] == ["sgd"]


def test_a_sweep_cut_short_counts_as_interrupted(monkeypatch, capsys, tmp_path):
    whole = _compare.sweep

    def cut(task, make, grid, **options):
        result = whole(task, make, grid, **options)
        return dataclasses.replace(result, planned=result.planned + 1)

    monkeypatch.setattr(_compare, "sweep", cut)
    options = [*QUICK.split(), "--optimizer", "sgd", "--out", str(tmp_path)]
    assert invoke(monkeypatch, *options) == 130
    assert "interrupted; finished: nothing" in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax_extras.cli._app", None)
    monkeypatch.setattr(sys, "argv", ["optax-extras"])
    with pytest.raises(SystemExit, match=r"pip install 'optax-extras\[cli\]'"):
        main()


def test_list_shows_every_function(monkeypatch, capsys):
    assert invoke(monkeypatch, "list") == 0
    output = capsys.readouterr().out
    for name in ox.__all__:
        if inspect.isfunction(getattr(ox, name)):
            assert name in output
    assert "1511.06807" in output
    assert "No paper; after Kingma & Ba 2014" in output
    assert invoke(monkeypatch, "list", "--json") == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["noisy_sgd"]["references"][0]["arxiv"] == "1511.06807"


def test_what_users_modules_print_is_no_output(monkeypatch, capsys, tmp_path):
    (tmp_path / "own_print.py").write_text(
        "import optax\nprint('loud')\n"
        "def loud(learning_rate):\n    print('loud')\n    return optax.sgd(1.0)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = [*QUICK.split(), "--optimizer", "own_print:loud", "--out", "a [b] ü"]
    assert invoke(monkeypatch, *options) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["steps"] == 20
    assert "loud" in printed.err
    assert (tmp_path / "a [b] ü" / "compare.png").exists()


@pytest.mark.slow
def test_every_number_is_readable(monkeypatch, capsys, tmp_path):
    names = ["optax_extras:sgld(temperature=0.001)", "momentum-corrected"]
    chosen = [x for name in names for x in ("--optimizer", name)]
    arguments = [*QUICK.split(), *chosen, "--task", "breast-cancer", "--out"]
    assert invoke(monkeypatch, *arguments, str(tmp_path)) == 0
    found = json.loads(capsys.readouterr().out)
    arguments.remove("--json")
    for width in (80, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        assert invoke(monkeypatch, *arguments, str(tmp_path)) == 0
        text = capsys.readouterr().out.partition("written:")[0]
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        assert {"optax_extras:sgld(", "temperature=0.001)"} <= set(text.split())
        printed = re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text)
        numbers = np.array(printed, float)
        for one in found["optimizers"]:
            values = [*one["best"].values(), *one["metrics"].values(), *one.values()]
            for value in values:
                if isinstance(value, float):
                    assert np.isclose(numbers, value, rtol=5e-3).any(), value


@pytest.mark.slow
def test_one_of_a_thing_is_no_plural(monkeypatch, capsys, tmp_path):
    options = ["--optimizer", "sgd", "--seeds", "1", "--budget", "1"]
    found = quick(monkeypatch, capsys, tmp_path, *options)
    assert "1 learning rate × 1 seed, 20 steps" in found["caption"]
    arguments = [x for x in QUICK.split() if x != "--json"]
    assert invoke(monkeypatch, *arguments, *options, "--out", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "lowest" not in printed
    assert "edians" not in printed


def test_a_slow_comparison_is_announced_once(capsys):
    times = iter([0.0, 5.0, 7.0, 9.0])
    told = []
    report = with_estimate(
        lambda *progress: told.append(progress), 8, lambda: next(times)
    )
    for done in (10, 20, 30):
        report(done, 300)
    assert told == [(10, 300), (20, 300), (30, 300)]
    # Eight times 5 s for the first steps, and 29 times 2 s for the others.
    expected = "about 8 min for 8 sweeps; fewer of them, --steps, --seeds or"
    assert capsys.readouterr().err.count(expected) == 1
    times = iter([0.0, 0.1, 0.2])
    quick_report = with_estimate(lambda *_: None, 1, lambda: next(times))
    quick_report(10, 300)
    quick_report(20, 300)
    assert not capsys.readouterr().err


@pytest.mark.slow
def test_workers_are_compared_over_bytes(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "out"
    methods = ["dense", "8-bit(block=64)", "diloco(every=5, outer_rate=0.4)"]
    options = [word for name in methods for word in ("--method", name)]
    options += ["--workers", "4"]
    options += ["--task", "digits(hidden=32)", "--steps", "10", "--budget", "2"]
    options += ["--seeds", "2", "--out", str(folder)]
    assert invoke(monkeypatch, "communicate", *options) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "4 workers" in output
    assert "MB: of each worker" in output
    assert "state" not in output
    summary = rows(folder / "summary.csv")
    assert [row["optimizer"] for row in summary] == methods
    dense, coded, local = (float(row["sent_bytes"]) for row in summary)
    assert 2 < dense / coded < 4
    assert local == pytest.approx(dense / 5, rel=0.01)
    assert float(rows(folder / "trials.csv")[-1]["sent_bytes"]) == local
    assert (folder / "communicate.png").read_bytes().startswith(b"\x89PNG")


DENSE = ["--method", "dense"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "dens"], "did you mean 'dense'?"),
        (["--method", "top-k(density=2)"], "`density` must be in (0, 1], got 2"),
        (["--method", "top-k(workers=2)"], "must not give `workers`"),
        (["--method", "optax:sgd"], "does not take `axis_name`"),
        (["--method", "diloco"], "with 'diloco': it sends nothing in 2 steps"),
        (["--method", "diloco(outer_rate=-1.0)"], "must be finite and >= 0"),
        ([*DENSE, "--workers", "64"], "must not be above the 8 devices, got 64"),
        ([*DENSE, "--batch-size", "30"], "must have a multiple"),
        ([*DENSE, "--task", "quadratic"], "must have a multiple"),
    ],
)
def test_what_workers_cannot_train_is_one_line(
    monkeypatch, capsys, tmp_path, options, message
):
    quick = ["--steps", "2", "--budget", "1", "--seeds", "1", "--out", str(tmp_path)]
    assert invoke(monkeypatch, "communicate", *quick, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_version(monkeypatch, capsys):
    assert invoke(monkeypatch, "--version") == 0
    line = capsys.readouterr().out
    assert line.startswith(f"optax-extras {ox.__version__} (jax ")
    assert f"optax {optax.__version__})" in line


def test_interrupt_keeps_what_was_finished(tmp_path):
    """Ctrl-C is pressed while the second optimizer is made for its training."""
    (tmp_path / "own_interrupt.py").write_text(
        "import os, signal, optax\n"
        "calls = []\n"
        "def pressed(learning_rate):\n"
        "    calls.append(learning_rate)\n"  # once before anything is trained
        "    if len(calls) == 2: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return optax.adam(learning_rate)\n"
    )
    command = "compare --task quadratic --steps 300 --budget 1 --seeds 1"
    optimizers = ["--optimizer", "sgd", "--optimizer", "own_interrupt:pressed"]
    # A shell's background jobs start with SIGINT ignored, which children inherit.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from optax_extras.cli import main; main()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, *command.split(), *optimizers, "--out", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 130, process.stderr
    assert "interrupted; finished: sgd" in process.stderr
    assert "Traceback" not in process.stderr
    assert "sgd" in process.stdout
    written = rows(tmp_path / "out" / "summary.csv")
    assert [row["optimizer"] for row in written] == ["sgd"]
