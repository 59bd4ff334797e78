"""Comparisons of sweeps, and the bar that shows how far one is."""

import io

import numpy as np
import optax
import pytest

from optax_extras.tuning import (
    Comparison,
    Goal,
    SweepResult,
    noisy_quadratic,
    progress_bar,
    sweep,
)

RATES = np.array([0.1, 1.0, 10.0])
STEPS = np.array([0, 10, 20])


def result(metric, **changes):
    """A sweep of three rates and three seeds with these values of a metric."""
    metric = np.asarray(metric, float)
    fields = {
        "task": "t",
        "goal": Goal("m"),
        "hyperparameters": {"learning_rate": RATES},
        "seeds": np.arange(metric.shape[1]),
        "steps": STEPS,
        "metrics": {"m": metric, "other": 2 * metric},
        "losses": metric[..., 1:],
        "initial_losses": metric[..., 0],
        "compile_seconds": 1.0,
        "run_seconds": 1.8,
        "state_bytes_per_parameter": 4.0,
        "planned": 3,
    }
    return SweepResult(**{**fields, **changes})


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
    # The first losses are 8, 4 and 60, so that the target is 2.3.
    assert one.steps_to_target == 20


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
    axes, _ = comparison.plot().axes
    crosses = axes.get_lines()[1]
    assert crosses.get_xdata().tolist() == RATES.tolist()


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


def test_other_sweeps_that_cannot_be_compared():
    with pytest.raises(ValueError, match="one number of rows, got 3 for 'a' and 2"):
        Comparison({"a": result(GOOD), "b": result(GOOD[:2])})
    with pytest.raises(ValueError, match="`sweeps` must not be empty"):
        Comparison({})
    other = result(GOOD, hyperparameters={"b1": RATES})
    with pytest.raises(ValueError, match="over `learning_rate` alone, got b1 for 'a'"):
        Comparison({"a": other}).plot()


def test_the_picture_shows_medians_and_divergence():
    comparison = Comparison({"good": result(GOOD), "slow": result(SLOW)})
    figure = comparison.plot("a title")
    left, right = figure.axes
    medians, crosses, *_ = left.get_lines()
    np.testing.assert_array_equal(medians.get_ydata(), [20.0, 2.0, np.nan])
    assert crosses.get_xdata().tolist() == [10.0]
    assert right.get_lines()[0].get_ydata().tolist() == [100.0, 8.0, 2.0]
    assert right.get_lines()[1].get_label() == "slow (1)"
    assert right.get_yscale() == left.get_yscale() == "log"
    assert left.get_ylim() == (1.0, 300.0)
    assert figure.get_suptitle() == "a title"
    assert "t: 20 steps, 3 seeds" in comparison.plot().get_suptitle()
    figure.savefig(io.BytesIO())
    below = Comparison({"x": result(GOOD - 102), "y": result(SLOW - 102)}).plot()
    assert below.axes[0].get_yscale() == "linear"
    assert below.axes[0].get_ylim() == pytest.approx((-109.8, 47))
    high = Comparison({"x": result(-GOOD, goal=Goal("m", "max"))}).plot()
    assert high.axes[0].get_yscale() == "linear"


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
