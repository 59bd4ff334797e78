"""`optax-extras lr-range`."""

import json
import sys

import pytest

from optax_extras.cli import _range, _training, main
from optax_extras.tuning import LRRangeResult, lr_range_test


def invoke(monkeypatch, *arguments):
    """Runs the command in this process and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["optax-extras", "lr-range", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    return exit_info.value.code or 0


@pytest.mark.parametrize("optimizer", ["noisy-sgd(eta=0.1)", "optax:adam"])
def test_a_table_and_a_picture(monkeypatch, capsys, tmp_path, optimizer):
    options = ["--task", "quadratic", "--optimizer", optimizer, "--seeds", "3"]
    assert invoke(monkeypatch, *options, "--out", str(tmp_path / "new")) == 0
    printed = capsys.readouterr().out
    assert f"{optimizer} on quadratic, 200 steps, 3 seeds" in printed
    for name in _range.NAMES.values():
        (row,) = (line for line in printed.splitlines() if line.startswith(f" {name} "))
        median, lowest, highest, seeds = row.split()[-4:]
        assert float(lowest) <= float(median) <= float(highest)
        assert seeds == "3"
    assert (tmp_path / "new" / "lr-range.png").read_bytes().startswith(b"\x89PNG")


def test_no_divergence_is_said(monkeypatch, capsys, tmp_path):
    options = ["--task", "quadratic", "--max-lr", "0.01", "--out", str(tmp_path)]
    assert invoke(monkeypatch, *options) == 0
    (row,) = (x for x in capsys.readouterr().out.splitlines() if "a tenth" in x[:9])
    assert row.count("none") == 3
    assert invoke(monkeypatch, *options, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suggestions"]["tenth_of_divergence"]["median"] is None
    assert list(found["suggestions"]) == list(_range.NAMES)
    assert (found["task"], found["optimizer"]) == ("quadratic", "sgd")


def test_the_picture_names_the_optimizer(monkeypatch, tmp_path):
    titles = []
    plot = LRRangeResult.plot

    def kept(self, title=None):
        titles.append(title)
        return plot(self, title)

    monkeypatch.setattr(LRRangeResult, "plot", kept)
    options = ["--task", "quadratic", "--optimizer", "optax:adam(b1=0.8)"]
    assert invoke(monkeypatch, *options, "--out", str(tmp_path)) == 0
    assert "optax:adam(b1=0.8) on quadratic" in titles[0]


def test_defaults_are_those_of_the_function(monkeypatch, capsys, tmp_path):
    found = {}

    def caught(task, make, **options):
        found.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(_training, "lr_range_test", caught)
    assert invoke(monkeypatch, "--out", str(tmp_path)) == 130
    assert {**found, "gradient_params": None} == lr_range_test.__kwdefaults__


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "absent"], "`task` must be MODULE:ATTRIBUTE or one of digits"),
        (["--optimizer", "absent"], "must be MODULE:ATTRIBUTE or one of sgd"),
        (["--optimizer", "optax:trace"], "'optax:trace' does not take `learning_rate`"),
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
