"""Comparisons of sweeps, and the bar that shows how far one is."""

import io

import numpy as np
import optax
import pytest
from measured import RATES, falling, result

from optax_extras.tuning import (
    Comparison,
    Goal,
    noisy_quadratic,
    progress_bar,
    sweep,
)

# Three rates × three seeds × three evaluations; the middle rate is the best.
BEST = [[100.0, 8.0, 2.0], [100.0, 4.0, 1.0], [100.0, 60.0, 3.0]]
GOOD = np.array([[[100.0, 50.0, 20.0]] * 3, BEST, [[100.0, 1e3, np.inf]] * 3])
SLOW = np.array([[[100.0, 90.0, 80.0]] * 3, [[100.0, 70.0, 50.0]] * 3, GOOD[2]])


def test_summaries():
    comparison = Comparison({"good": result(GOOD), "slow": result(SLOW)})
    assert comparison.target == pytest.approx(100 + 0.95 * (2 - 100))  # 6.9
    good, slow = comparison.summaries()
    assert good.optimizer == "good"
    assert good.best == {"learning_rate": 1.0}
    assert not good.at_edge
    assert (good.median, good.lowest, good.highest) == (2.0, 1.0, 3.0)
    assert good.metrics == {"m": 2.0, "other": 4.0}
    assert good.steps_to_target == 20  # 20, 10 and 20
    assert (good.diverged, good.trials) == (3, 9)
    assert good.state_bytes_per_parameter == 4.0
    assert slow.steps_to_target == np.inf
    assert slow.median == 50.0


def test_a_goal_that_is_to_be_high():
    def negative(values):
        return result(-values, goal=Goal("m", "max"))

    comparison = Comparison({"good": negative(GOOD), "slow": negative(SLOW)})
    assert comparison.target == pytest.approx(-6.9)
    good, slow = comparison.summaries()
    assert (good.median, good.lowest, good.highest) == (-2.0, -3.0, -1.0)
    assert (good.steps_to_target, slow.steps_to_target) == (20, np.inf)


def test_a_goal_that_is_the_loss():
    goal = Goal("loss")
    (one,) = Comparison({"good": result(GOOD, goal=goal)}).summaries()
    assert one.median == 2.0
    # The target is 6.9, as the loss of the first mini-batch is 100.
    assert one.steps_to_target == 20


def test_steps_to_target_count_from_where_it_is_kept():
    # Below the target of 10 at once, above it later, and at last below it for good.
    leaves = [[100.0, 5.0, 50.0, 5.0, 5.0]]
    ends_above = [[100.0, 5.0, 5.0, 5.0, 50.0]]
    best = [[100.0, 90.0, 80.0, 70.0, 100 / 19]]
    grid = {"learning_rate": RATES[:1]}
    comparison = Comparison(
        {
            name: result([values], grid, seeds=np.arange(1))
            for name, values in {
                "leaves": leaves,
                "above": ends_above,
                "x": best,
            }.items()
        }
    )
    steps = [summary.steps_to_target for summary in comparison.summaries()]
    assert steps == [30, np.inf, 40]


def test_a_seed_that_diverged_never_keeps_the_target():
    values = [[[2.0, 2.0, 2.0, 0.1], [2.0, 2.0, 0.1, 0.1], [2.0, 0.1, 0.1, 0.1]]]
    losses = np.array([[[1.0] * 3, [1.0] * 3, [1e9] * 3]])
    one = result(values, losses=losses)
    assert one.diverged().tolist() == [[False, False, True]]
    (summary,) = Comparison({"x": one}).summaries()
    assert (summary.highest, summary.steps_to_target) == (np.inf, 30)


@pytest.mark.parametrize("end", [2.0, 3.0])
def test_there_is_no_target_if_nothing_improves(end):
    comparison = Comparison({"x": result(falling(end))})
    assert np.isnan(comparison.target)
    assert comparison.summaries()[0].steps_to_target == np.inf
    _, texts = comparison.plot().axes[1].get_legend_handles_labels()
    assert not [text for text in texts if text.startswith("target")]


def test_one_metric_chooses_and_another_is_reported():
    goal = Goal("validation", "min", "test")
    metrics = {"validation": falling(0.5, 0.1), "test": falling(0.2, 0.4)}
    one = result(metrics["test"], goal=goal, metrics=metrics)
    comparison = Comparison({"x": one})
    (summary,) = comparison.summaries()
    assert summary.best == {"learning_rate": 1.0}
    assert summary.median == pytest.approx(0.4)
    assert comparison.target == pytest.approx(2 - 0.95 * 1.6)
    left, right = comparison.plot().axes
    np.testing.assert_allclose(left.get_lines()[0].get_ydata(), [0.5, 0.1])
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), metrics["test"][1, 0])
    assert left.get_ylabel() == "validation after 30 steps"
    assert right.get_ylabel() == "test"
    assert left.get_title() == "choice of learning_rate by validation"
    assert right.get_title() == "reported: test with the best learning_rate"


def test_the_best_at_an_end_of_the_grid():
    (one,) = Comparison({"x": result(GOOD[[1, 0, 2]])}).summaries()
    assert one.best == {"learning_rate": 0.1}
    assert one.at_edge
    (one,) = Comparison({"x": result(GOOD[[2, 0, 1]])}).summaries()
    assert one.best == {"learning_rate": 10.0}
    assert one.at_edge
    single = result(GOOD[1:2], hyperparameters={"learning_rate": RATES[:1]})
    (one,) = Comparison({"x": single}).summaries()
    assert not one.at_edge


def test_seeds_that_diverged_count_as_the_worst():
    values = GOOD.copy()
    values[:, 1:, 2] = np.nan
    comparison = Comparison({"x": result(values), "good": result(GOOD)})
    one, _ = comparison.summaries()
    assert (one.lowest, one.median, one.highest) == (20.0, np.inf, np.inf)
    assert comparison.target == pytest.approx(6.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "u"}, "`sweeps` must have one task, got t for 'a' and u for 'b'"),
        ({"goal": Goal("other")}, "must have one goal"),
        ({"seeds": np.arange(1, 4)}, r"one seeds, got \[0, 1, 2\] for 'a' and \[1, 2,"),
        ({"steps": np.array([0, 5, 20])}, r"must have one steps"),
    ],
)
def test_sweeps_that_cannot_be_compared(changes, message):
    with pytest.raises(ValueError, match=message):
        Comparison({"a": result(GOOD), "b": result(GOOD, **changes)})


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        ([result(GOOD)], "map names of optimizers to results of `sweep`, got a list"),
        ({"a": GOOD}, "got a ndarray for the name 'a'"),
        ({"a": result(GOOD), "b": None}, "got a NoneType for the name 'b'"),
        ({1: result(GOOD)}, "got a SweepResult for the name 1"),
    ],
)
def test_values_that_are_no_sweeps(sweeps, message):
    with pytest.raises(TypeError, match=message):
        Comparison(sweeps)


def test_there_must_be_a_sweep():
    with pytest.raises(ValueError, match="`sweeps` must not be empty"):
        Comparison({})


def test_a_comparison_of_real_sweeps():
    task, grid = noisy_quadratic(), {"learning_rate": [0.01, 0.1]}
    sweeps = {
        name: sweep(task, make, grid, steps=10, seeds=2)
        for name, make in {"sgd": optax.sgd, "adam": optax.adam}.items()
    }
    for summary in Comparison(sweeps).summaries():
        medians = np.median(sweeps[summary.optimizer].final("value"), axis=1)
        assert summary.median == pytest.approx(medians.min())


def test_columns_are_those_of_the_dataframe():
    columns = result(GOOD).columns()
    assert list(columns) == ["learning_rate", "seed", "step", "loss", "m", "other"]
    assert all(len(values) == 27 for values in columns.values())


def test_a_bar_in_a_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    with progress_bar("quadratic") as on_progress:
        for done in (10, 20, 30):
            on_progress(done, 30)
    shown = terminal.getvalue()
    assert "quadratic" in shown
    assert "steps/s" in shown


def test_no_bar_outside_a_terminal(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    with progress_bar("quadratic") as on_progress:
        on_progress(30, 30)
    assert not output.getvalue().strip()
