"""Sweeps: every trial is the run alone, and all of them are one program."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras.tuning import (
    SweepResult,
    Task,
    batches_of_step,
    digits,
    sweep,
    train,
)

RATES = [0.01, 0.1, 1.0]


def noisy_quadratic(**changes):
    """A quadratic with noise in its batches and in its loss."""
    parts = {
        "name": "quadratic",
        "init": lambda key: jax.random.normal(key, (4,)),
        "batches": batches_of_step(
            lambda key, step: jax.random.normal(jax.random.fold_in(key, step), (4,))
        ),
        "loss": lambda x, batch, key: jnp.sum(
            (x - 0.1 * batch - 0.1 * jax.random.normal(key, (4,))) ** 2
        ),
        "evaluate": lambda x: {"distance": jnp.sum(x**2), "first": x[0]},
    }
    return Task(**{**parts, **changes})


def run(task=None, make=optax.sgd, grid=None, **options):
    options = {"steps": 10, "eval_every": 4, "seeds": 3, **options}
    return sweep(
        task or noisy_quadratic(), make, grid or {"learning_rate": RATES}, **options
    )


@pytest.mark.parametrize("make", [optax.sgd, optax.adam])
def test_a_trial_is_the_run_alone(make):
    result = run(make=make)
    assert result.steps.tolist() == [0, 4, 8, 10]
    for i, j in ((0, 2), (2, 0)):
        alone = train(noisy_quadratic(), make(RATES[i]), steps=10, seed=j, eval_every=4)
        for name, values in alone.metrics.items():
            np.testing.assert_allclose(
                result.metrics[name][i, j], values, rtol=1e-5, atol=1e-7
            )


def test_a_trial_of_digits_is_the_run_alone():
    result = run(digits(), grid={"learning_rate": [0.05, 0.1]}, seeds=2, steps=30)
    for j in range(2):
        alone = train(digits(), optax.sgd(0.1), steps=30, seed=j, eval_every=4)
        for name, values in alone.metrics.items():
            np.testing.assert_allclose(result.metrics[name][1, j], values, rtol=1e-4)


def test_a_trial_does_not_depend_on_the_grid_around_it():
    whole = run()
    for i, rate in enumerate(RATES):
        alone = run(grid={"learning_rate": [rate]}, seeds=[2])
        np.testing.assert_allclose(
            alone.metrics["first"][0, 0], whole.metrics["first"][i, 2], rtol=1e-6
        )


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_chunks_do_not_change_a_result(size):
    whole, chunked = run(), run(trials_at_once=size)
    np.testing.assert_allclose(chunked.losses, whole.losses, rtol=1e-6)
    for name, values in whole.metrics.items():
        np.testing.assert_allclose(chunked.metrics[name], values, rtol=1e-6)


def test_an_optimizer_that_draws_gets_a_key_of_each_seed():
    task = noisy_quadratic(
        init=lambda key: jnp.zeros(4),
        batches=batches_of_step(lambda key, step: jnp.zeros(4)),
        loss=lambda x, batch, key: jnp.sum(x**2),
    )
    grid = {"learning_rate": [0.1], "eta": [0.0, 1.0]}
    result = run(task, ox.noisy_sgd, grid, steps=1)
    moved = result.metrics["first"][..., -1]
    assert (moved[0] == 0).all()
    assert len(np.unique(moved[1])) == 3
    again = run(task, ox.noisy_sgd, {**grid, "eta": [1.0]}, steps=1, seeds=[2])
    np.testing.assert_allclose(again.metrics["first"][0, 0, -1], moved[1, 2], rtol=1e-6)
    fixed = run(task, lambda eta: ox.noisy_sgd(0.1, eta, key=5), {"eta": [1.0]})
    assert len(np.unique(fixed.metrics["first"][0, :, -1])) == 1


def test_losses_are_means_of_what_the_mini_batches_gave():
    task = noisy_quadratic(
        batches=batches_of_step(lambda key, step: step.astype(jnp.float32)),
        loss=lambda x, batch, key: batch + 0 * jnp.sum(x),
    )
    result = run(task)
    np.testing.assert_allclose(result.losses[0, 0], [1.5, 5.5, 8.5])


def test_the_grid_and_the_zipped_rows():
    grid = {"learning_rate": [0.1, 0.2], "momentum": [0.0, 0.5, 0.9]}
    result = run(grid=grid, steps=1)
    assert result.hyperparameters["learning_rate"].tolist() == [0.1] * 3 + [0.2] * 3
    assert result.hyperparameters["momentum"].tolist() == [0.0, 0.5, 0.9] * 2
    rows = {"learning_rate": [0.1, 0.2], "momentum": [0.0, 0.9]}
    zipped = run(grid=rows, steps=1, zipped=True)
    assert zipped.hyperparameters["momentum"].tolist() == [0.0, 0.9]
    assert zipped.losses.shape == (2, 3, 1)


def test_one_compilation_whatever_the_values():
    traces = []

    def make(learning_rate):
        traces.append(None)
        return optax.sgd(learning_rate)

    run(make=make, grid={"learning_rate": np.geomspace(1e-3, 1, 64)}, seeds=5)
    assert len(traces) == 2  # for the initial state and for the steps
    run(make=make, grid={"learning_rate": [1.0]}, trials_at_once=1, steps=11)
    assert len(traces) == 4  # of another sweep, whose last segment is shorter


def test_a_diverged_trial_harms_no_other():
    result = run(grid={"learning_rate": [0.1, 1e30, 0.2]}, steps=20)
    np.testing.assert_array_equal(
        result.diverged(), [[False] * 3, [True] * 3, [False] * 3]
    )
    alone = run(grid={"learning_rate": [0.1, 0.2]}, steps=20)
    np.testing.assert_allclose(result.losses[::2], alone.losses, rtol=1e-6)
    assert result.best()["learning_rate"] in (0.1, 0.2)
    assert result.best("distance", "max")["learning_rate"] in (0.1, 0.2)


def test_best_is_of_the_median():
    losses = np.array([[[1.0], [5.0], [9.0]], [[4.0], [4.0], [4.0]]])
    result = SweepResult(
        "t",
        {"lr": np.array([1.0, 2.0])},
        np.arange(3),
        np.array([0, 1]),
        {"m": -losses},
        losses,
        0.0,
    )
    assert result.best() == {"lr": 2.0}
    assert result.best("m", "max") == {"lr": 2.0}
    assert result.best("m") == {"lr": 1.0}


def test_progress_ends_at_the_total():
    seen = []
    run(on_progress=lambda done, total: seen.append((done, total)), trials_at_once=2)
    assert seen == [(24, 90), (48, 90), (60, 90), (72, 90), (84, 90), (90, 90)]


def test_saved_results_are_read_back(tmp_path):
    result = run()
    result.save(tmp_path / "sweep.npz")
    read = SweepResult.load(tmp_path / "sweep.npz")
    for name in ("task", "seconds"):
        assert getattr(read, name) == getattr(result, name)
    for name in ("seeds", "steps", "losses", "metrics", "hyperparameters"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(read, name), getattr(result, name)
        )
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(ValueError, match=r"other\.npz is not a sweep that `save`"):
        SweepResult.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"grid": {"learning_rate": []}}, ValueError, r"non-empty lists.*\[\] for 'le"),
        ({"grid": {"learning_rate": ["a"]}}, ValueError, "lists of numbers.*'a'"),
        ({"grid": {"learning_rate": 0.1}}, ValueError, "lists of numbers.*got 0.1"),
        ({"grid": {"rate": [0.1]}}, TypeError, "take every hyperparameter, got 'rate'"),
        (
            {"grid": {"learning_rate": [1], "momentum": [1, 2]}, "zipped": True},
            ValueError,
            r"one number of values, got \{'learning_rate': 1, 'momentum': 2\}",
        ),
        ({"seeds": []}, ValueError, r"`seeds` must not be empty, got \[\]"),
        ({"seeds": 0}, ValueError, "`seeds` must not be empty, got 0"),
        ({"steps": 0}, ValueError, "`steps` must be >= 1, got 0"),
        ({"eval_every": 0}, ValueError, "`eval_every` must be >= 1, got 0"),
        ({"trials_at_once": 0}, ValueError, "`trials_at_once` must be >= 1, got 0"),
        (
            {"task": noisy_quadratic(loss=lambda x, batch, key: x)},
            ValueError,
            r"loss of task 'quadratic' must be a scalar, got shape \(4,\)",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        run(**arguments)


def test_no_hyperparameters():
    with pytest.raises(ValueError, match="`hyperparameters` must not be empty"):
        sweep(noisy_quadratic(), optax.sgd, {}, steps=1)


def test_unknown_metrics_and_modes():
    result = run(steps=1)
    with pytest.raises(ValueError, match="one of loss, distance, first, got 'x'"):
        result.best("x")
    with pytest.raises(ValueError, match="`mode` must be 'min' or 'max', got 'x'"):
        result.best("loss", "x")


def test_a_dataframe_has_a_row_for_every_trial_and_evaluation():
    pandas = pytest.importorskip("pandas")
    result = run()
    frame = result.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 3 * 3 * 4
    row = frame[
        (frame.learning_rate == 0.1) & (frame.seed == 2) & (frame.step == 8)
    ].iloc[0]
    assert row.loss == result.losses[1, 2, 1]
    assert row["first"] == result.metrics["first"][1, 2, 2]
    assert frame[frame.step == 0].loss.isna().all()


def test_plots_show_the_median_the_range_and_divergence():
    result = run(grid={"learning_rate": [0.01, 0.1, 1e30]}, steps=20)
    left, right = result.plot("distance").axes
    median = np.median(result.final("distance"), axis=1)
    line = left.get_lines()[0]
    np.testing.assert_allclose(line.get_ydata()[:2], median[:2])
    assert np.isnan(line.get_ydata()[2])
    assert "seeds diverged" in left.get_legend_handles_labels()[1]
    assert "learning_rate = 0.1" in right.get_title()
    np.testing.assert_allclose(
        right.get_lines()[0].get_ydata(), np.median(result.losses[1], axis=0)
    )
    grid = run(grid={"learning_rate": [0.1, 0.2], "momentum": [0.0, 0.9]}, steps=2)
    cloud = grid.plot(hyperparameter="momentum").axes[0].get_lines()[0]
    assert len(cloud.get_xdata()) == 12
    with pytest.raises(ValueError, match="one of learning_rate, got 'x'"):
        result.plot(hyperparameter="x")
    with pytest.raises(ValueError, match="`metric` must be one of"):
        result.plot("x")
