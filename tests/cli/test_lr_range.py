"""`optax-extras lr-range`."""

import sys

import pytest

from optax_extras.cli import main


def invoke(monkeypatch, *arguments):
    """Runs the command in this process and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["optax-extras", "lr-range", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    return exit_info.value.code or 0


@pytest.mark.parametrize("optimizer", ["noisy-sgd", "optax:adam"])
def test_a_table_and_a_picture(monkeypatch, capsys, tmp_path, optimizer):
    options = ["--task", "quadratic", "--optimizer", optimizer, "--seeds", "3"]
    assert invoke(monkeypatch, *options, "--out", str(tmp_path / "new")) == 0
    printed = capsys.readouterr().out
    assert f"{optimizer} on quadratic, 3 seeds" in printed
    for name in ("steepest descent", "a tenth of divergence"):
        (row,) = (line for line in printed.splitlines() if name in line)
        median, lowest, highest, seeds = (x.strip() for x in row.split("│")[2:6])
        assert float(lowest) <= float(median) <= float(highest)
        assert seeds == "3"
    assert (tmp_path / "new" / "lr-range.png").read_bytes().startswith(b"\x89PNG")


def test_no_divergence_is_said(monkeypatch, capsys, tmp_path):
    options = ["--task", "quadratic", "--max-lr", "0.01", "--out", str(tmp_path)]
    assert invoke(monkeypatch, *options) == 0
    (row,) = (x for x in capsys.readouterr().out.splitlines() if "a tenth" in x)
    assert row.count("none") == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "absent"], "`task` must be MODULE:ATTRIBUTE or one of digits"),
        (["--optimizer", "absent"], "'absent' is neither MODULE:FACTORY nor one of"),
        (["--optimizer", "optax:trace"], "'optax:trace' must take `learning_rate`"),
        (["--optimizer", "optax:absent"], "cannot load 'optax:absent'"),
        (["--min-lr", "2", "--max-lr", "1"], "the second the larger, got 2.0 and 1.0"),
        (["--seeds", "0"], "--seeds"),
    ],
)
def test_bad_usage_is_one_line(monkeypatch, capsys, tmp_path, options, message):
    assert invoke(monkeypatch, *options, "--out", str(tmp_path)) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
