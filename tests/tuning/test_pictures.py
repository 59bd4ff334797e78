"""Pictures of sweeps and comparisons: what they draw, cut off and mark."""

import numpy as np
import pytest
from measured import RATES, falling, result

from optax_extras.tuning import Comparison, Goal
from optax_extras.tuning._drawing import STYLES

ABOVE, BELOW = "median above the axis", "median below the axis"
LOST = "half of the seeds or more diverged"
PAIRS = {
    "learning_rate": np.tile(RATES, 2),
    "momentum": np.repeat([0.0, 0.9], 3),
}


def labels(axes):
    return axes.get_legend_handles_labels()[1]


def legend(figure):
    legends = [one for part in (figure, *figure.subfigs) for one in part.legends]
    return [text.get_text() for one in legends for text in one.get_texts()]


def marks(axes, kind):
    """Abscissae of the marks of a kind in the margins of some axes."""
    margin = axes.get_xaxis_transform()
    return [
        x
        for line in axes.get_lines()
        if line.get_marker() == kind and line.get_transform() == margin
        for x in line.get_xdata()
    ]


def draw(figure):
    """Lays a figure out, which fails where a text or a limit is wrong."""
    figure.draw_without_rendering()
    return figure


def test_a_comparison_draws_medians_and_marks_divergence():
    lost = falling(1.0, 0.1, 0.5)
    lost[2, :, -1] = np.nan
    figure = Comparison({"a": result(lost), "b": result(falling(1.0, 0.5, 1.0))}).plot()
    left, right = draw(figure).axes
    np.testing.assert_allclose(left.get_lines()[0].get_ydata(), [1.0, 0.1, np.nan])
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), lost[1, 0])
    assert marks(left, "x") == [10.0]
    assert "t: 30 steps, 2 seeds" in figure.get_suptitle()
    texts = legend(figure)
    assert texts[:2] == ["a (1)", "b (1)"]
    assert LOST in texts
    assert left.get_ylim() == right.get_ylim()
    assert left.get_yscale() == "log"


@pytest.mark.parametrize("sign", [1, -1])
def test_an_unstable_rate_does_not_stretch_the_axes(sign):
    goal = Goal("m", "min" if sign == 1 else "max")
    values = falling(1.0, 0.1, 1.0)
    wild = values.copy()
    wild[2, :, 1:] = 1e15
    one = result(sign * wild, goal=goal, losses=values[..., 1:])
    for figure in (one.plot(), Comparison({"a": one}).plot()):
        left, _ = draw(figure).axes
        assert max(np.abs(left.get_ylim())) < 5
        assert marks(left, "^" if sign == 1 else "v") == [10.0]
        assert (ABOVE if sign == 1 else BELOW) in legend(figure)


def test_a_best_point_that_no_axis_can_hold_is_marked():
    values = falling(1.0, 0.5, 0.1)
    values[1, :, -1] = 0.0
    for figure in (result(values).plot(), Comparison({"a": result(values)}).plot()):
        left, right = draw(figure).axes
        assert left.get_yscale() == "log"
        assert marks(left, "v") == [1.0]
        assert marks(right, "v") == [30]
        large = [line for line in left.get_lines() if line.get_markersize() == 8]
        assert [list(line.get_xdata()) for line in large if line.get_marker() == "v"]


def test_curves_that_coincide_are_said_to():
    values = falling(1.0, 0.1, 1.0)
    other = values * [[[1.0]], [[1.0]], [[0.5]]]
    sweeps = {"a": result(values), "b": result(1.001 * values), "c": result(other)}
    assert legend(Comparison(sweeps).plot())[:3] == [
        "a (1)",
        "b (1) ≈ a",
        "c (1) ≈ a in the right panel",
    ]
    assert len({style.marker for style in STYLES}) == len(STYLES) == 6
    assert len({str(style.linestyle) for style in STYLES}) == 6


def test_more_than_six_optimizers_take_several_panels():
    sweeps = {f"x{i}": result(falling(1.0, 0.1 + 0.01 * i, 1.0)) for i in range(13)}
    figure = draw(Comparison(sweeps).plot())
    panels = figure.axes
    assert len(panels) == 6
    names = [[text.split()[0] for text in labels(axes)] for axes in panels[::2]]
    assert [len(some) for some in names] == [5, 5, 5]  # the best one is repeated
    assert [some.count("x0") for some in names] == [1, 1, 1]
    assert sorted({name for some in names for name in some}) == sorted(sweeps)
    assert "x0 (the best)" in labels(panels[2])
    assert len({axes.get_ylim() for axes in panels}) == 1
    assert len({axes.get_xlim() for axes in panels[::2]}) == 1


def test_grids_may_differ():
    pairs = result(falling(1, 0.5, 1, 0.9, 0.3, 0.8), PAIRS)
    rates = {"learning_rate": np.array([0.01, 0.1])}
    momentum = {"momentum": np.array([0.0, 0.5, 0.9])}
    comparison = Comparison(
        {
            "pairs": pairs,
            "rates": result(falling(1.0, 0.2), rates),
            "momentum": result(falling(1.0, 0.4, 0.6), momentum),
        }
    )
    left = draw(comparison.plot()).axes[0]
    first, second, third = (
        line for line in left.get_lines() if line.get_label() in labels(left)[:3]
    )
    np.testing.assert_allclose(first.get_ydata(), [0.9, 0.3, 0.8])
    np.testing.assert_allclose(second.get_xdata(), [0.01, 0.1])
    np.testing.assert_allclose(third.get_ydata(), [0.4, 0.4])  # a level line
    assert third.get_xdata().tolist() == [0.01, 10.0]
    assert labels(left)[0] == "pairs (learning_rate 1, momentum 0.9)"
    assert "each value with the best others" in left.get_title().replace("\n", " ")
    other = comparison.plot(hyperparameter="momentum").axes[0]
    np.testing.assert_allclose(other.get_lines()[0].get_ydata(), [0.5, 0.3])
    assert other.get_xlabel() == "momentum"
    with pytest.raises(ValueError, match="one of learning_rate, momentum, got 'x'"):
        comparison.plot(hyperparameter="x")


def test_a_sweep_of_two_hyperparameters_is_a_heat_map():
    values = falling(1.0, 0.5, 1.0, 0.9, 0.3, 0.8)
    values[5, :, 1:] = np.inf
    figure = draw(result(values, PAIRS).plot())
    left, right, bar = figure.axes
    (cells,) = left.collections
    np.testing.assert_allclose(
        np.ma.filled(cells.get_array(), np.nan), [[1.0, 0.5, 1.0], [0.9, 0.3, np.nan]]
    )
    assert [text.get_text() for text in left.get_xticklabels()] == ["0.1", "1", "10"]
    assert [text.get_text() for text in left.get_yticklabels()] == ["0", "0.9"]
    places = {line.get_label(): line.get_xydata().tolist() for line in left.get_lines()}
    assert places == {LOST: [[2, 1]], "best": [[1, 1]]}
    assert bar.get_ylabel() == "m after 30 steps"
    assert "momentum = 0.9" in right.get_title().replace("\n", " ")


def test_rows_that_form_no_grid_are_points():
    diagonal = {"learning_rate": RATES, "momentum": np.array([0.0, 0.5, 0.9])}
    left, *_ = draw(result(falling(1.0, 0.1, 0.5), diagonal).plot()).axes
    (points,) = left.collections
    np.testing.assert_allclose(points.get_array(), [1.0, 0.1, 0.5])
    assert (left.get_xscale(), left.get_yscale()) == ("log", "linear")


def test_other_hyperparameters_are_at_their_best():
    pairs = result(falling(1.0, 0.5, 1.0, 0.9, 0.3, 0.8), PAIRS)
    left = pairs.plot(hyperparameter="momentum").axes[0]
    np.testing.assert_allclose(left.get_lines()[0].get_ydata(), [0.5, 0.3])
    assert left.get_title() == "each with its best learning_rate"
    triples = {**PAIRS, "eps": np.arange(6.0)}
    one = result(falling(1.0, 0.5, 1.0, 0.9, 0.3, 0.8), triples)
    left = one.plot(hyperparameter=("momentum", "learning_rate")).axes[0]
    assert (left.get_xlabel(), left.get_ylabel()) == ("momentum", "learning_rate")
    assert left.get_title() == "each with its best eps"
    assert one.plot().axes[0].get_ylabel() == "momentum"  # the first two that vary
    for wrong in ("x", ("eps", "eps"), ("eps", "x"), ("momentum", "eps", "x"), ()):
        with pytest.raises(ValueError, match="`hyperparameter` must be one of"):
            one.plot(hyperparameter=wrong)


def test_one_value_is_drawn_once():
    twice = result(falling(0.5, 0.1, 1.0), {"learning_rate": np.array([0.1, 0.1, 1])})
    left = twice.plot().axes[0]
    np.testing.assert_allclose(left.get_lines()[0].get_xdata(), [0.1, 1])
    np.testing.assert_allclose(left.get_lines()[0].get_ydata(), [0.1, 1])


ODD = {
    "nothing finite": (np.full((3, 2, 4), np.nan), {}),
    "all diverged": (np.where(np.arange(4), np.inf, falling(1.0, 2.0, 3.0)), {}),
    "one row, seed, evaluation": (falling(0.1, seeds=1)[..., ::3], {}),
    "zeros": (np.zeros((3, 2, 4)), {}),
    "constant": (np.full((3, 2, 4), 0.5), {}),
    "negative": (falling(-1.0, -3.0, -2.0), {}),
    "high is better": (falling(3.0, 9.0, -9.0), {"goal": Goal("m", "max")}),
    "largest numbers": (np.full((3, 2, 4), 1e280) * [1, 1, -1, 1], {}),
    "smallest numbers": (np.full((3, 2, 4), 5e-324), {}),
    "no metric before training": (falling(1.0, 0.1, 1.0) * [np.nan, 1, 1, 1], {}),
    "loss": (falling(0.1, 0.2, 0.3), {"goal": Goal("mean_loss")}),
    "zero rate": (falling(0.1, 0.2, 0.3), {"grid": {"x": np.array([0, 0.01, 1])}}),
    "negative rate": (falling(0.1, 0.2, 0.3), {"grid": {"x": np.array([-1, 0, 1])}}),
}


@pytest.mark.daily(
    "all diverged",
    "largest numbers",
    "zeros",
    "zero rate",
    "one row, seed, evaluation",
    "loss",
)
@pytest.mark.parametrize("name", ODD)
def test_odd_numbers_are_drawn(name):
    values, changes = ODD[name]
    one = result(values, **changes)
    good = result(falling(*np.linspace(0.1, 1, len(values)), seeds=values.shape[1]))
    draw(one.plot())
    one.plot("other")
    comparison = Comparison({"odd": one})
    comparison.summaries()
    draw(comparison.plot())
    if values.shape == (3, 2, 4) and not changes:
        Comparison({"odd": one, "good": good}).plot()


def test_texts_are_drawn_as_they_are():
    long = "a_name_of_sixty_characters" * 3
    names = ["$a_b$ 10% of $5", "_hidden", r"\alpha ${^", "", long]
    odd = {"metrics": {long: falling(1.0, 0.1, 1.0)}, "goal": Goal(long)}
    grid = {"$l_r$ %": RATES}
    sweeps = {name: result(falling(1.0, 0.1, 1.0), grid, **odd) for name in names}
    figure = draw(Comparison(sweeps).plot("$title_ % $" + long))
    texts = legend(figure)
    assert texts[0] == r"\$a_b\$ 10% of \$5 (1)"
    assert texts[1].startswith(" _hidden (1)")
    assert max(len(line) for text in texts for line in text.splitlines()) <= 61
    draw(sweeps["_hidden"].plot())
