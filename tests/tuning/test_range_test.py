"""Range tests: the ramp of rates, the averages and the suggestions."""

import dataclasses
import signal

import jax
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras.tuning import (
    LRRangeResult,
    digits,
    lr_range_test,
    quadratic,
    sweep,
)


def result_of(losses, smoothing=0.0):
    losses = np.array(losses, np.float32)
    rates = np.geomspace(1e-3, 1e-3 * 2 ** (losses.shape[1] - 1), losses.shape[1])
    return LRRangeResult("t", rates, np.arange(len(losses)), losses, smoothing)


def test_the_ramp_is_the_plain_loop():
    task = quadratic(3)
    result = lr_range_test(
        task, optax.adam, min_lr=0.01, max_lr=1.0, steps=9, seeds=[4]
    )
    np.testing.assert_allclose(result.learning_rates, np.geomspace(0.01, 1, 9))
    key = jax.random.split(jax.random.key(4), 4)[0]
    params = task.init(key)
    state = optax.adam(0.01).init(params)
    for rate, loss in zip(result.learning_rates, result.losses[0], strict=True):
        value, grads = jax.value_and_grad(task.loss)(params, None, None)
        assert float(value) == pytest.approx(loss, rel=1e-5)
        updates, state = optax.adam(rate).update(grads, state)
        params = optax.apply_updates(params, updates)


def test_smoothing_is_an_average_without_bias():
    result = result_of([[4.0, 2.0, 1.0]], smoothing=0.5)
    expected = [4.0, (4 * 0.25 + 2 * 0.5) / 0.75, (4 * 0.125 + 2 * 0.25 + 0.5) / 0.875]
    np.testing.assert_allclose(result.smoothed[0], expected)


def test_divergence_is_five_times_the_lowest_or_no_number():
    result = result_of(
        [
            [4.0, 1.0, 4.9, 5.1, 1.0],
            [4.0, 1.0, np.nan, 1.0, 1.0],
            [4.0, 1.0, 1.0, 1.0, np.inf],
            [4.0, 3.0, 2.0, 1.0, 0.5],
        ]
    )
    np.testing.assert_array_equal(result.divergence, [3, 2, 4, 5])
    tenth = result.tenth_of_divergence
    np.testing.assert_allclose(tenth.rates, [8e-4, 4e-4, 16e-4, np.nan])
    assert tenth[1:] == pytest.approx((8e-4, 4e-4, 16e-4))


def test_steepest_descent_is_sought_before_divergence():
    result = result_of(
        [
            [4.0, 3.9, 1.0, 0.9, 9.0, 0.0],
            [4.0, 3.0, 2.9, 2.8, 2.7, 2.6],
            [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
        ]
    )
    np.testing.assert_allclose(result.steepest.rates, [2e-3, 1e-3, np.nan])
    assert result.steepest.median == pytest.approx(1.5e-3)
    np.testing.assert_allclose(
        result.between.rates, [np.sqrt(8e-7 * 4), np.nan, np.nan]
    )
    none = result_of([[1.0, 1.0, 1.0]])
    assert np.isnan(none.steepest[1:]).all()
    assert np.isnan(none.tenth_of_divergence[1:]).all()


def test_one_lucky_batch_is_no_steep_descent():
    fall = 10 / (1 + np.exp((np.arange(200) - 120) / 8)) + 1  # steepest at 120
    lucky = np.where(np.arange(200) == 60, -15, 0)
    result = result_of([fall, fall + lucky], 0.9)
    at = np.searchsorted(result.learning_rates, result.steepest.rates * (1 - 1e-9))
    assert np.abs(at - 120).max() <= 5


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(optax.adam, marks=pytest.mark.slow),
        pytest.param(optax.sgd, marks=pytest.mark.nightly),
        pytest.param(ox.momentum_sgd, marks=pytest.mark.nightly),
    ],
)
def test_the_best_rate_lies_between(make):
    task = digits(hidden=None)
    result = lr_range_test(task, make, seeds=3)
    lowest, middle, highest = (
        suggestion.median
        for suggestion in (result.steepest, result.between, result.tenth_of_divergence)
    )
    rates = np.geomspace(1e-3, 10, 9)
    sweeps = sweep(task, make, {"learning_rate": rates}, steps=300, seeds=2)
    assert lowest < sweeps.best()["learning_rate"] < highest
    losses = np.median(sweeps.final(task.goal.metric), axis=1)
    assert np.interp(np.log(middle), np.log(rates), losses) < 1.5 * losses.min()


def test_a_suggested_rate_trains():
    result = lr_range_test(digits(), optax.sgd)
    assert result.losses.shape == (5, 200)
    for suggestion in (result.steepest, result.between, result.tenth_of_divergence):
        assert suggestion.lowest <= suggestion.median <= suggestion.highest
        assert 0.03 < suggestion.median < 3
        assert suggestion.highest < 4 * suggestion.lowest


def test_an_optimizer_that_draws_gets_a_key():
    result = lr_range_test(quadratic(), ox.noisy_sgd, steps=5, seeds=2)
    assert np.isfinite(result.losses).all()


def test_one_compilation():
    traces = []

    def make(learning_rate):
        traces.append(None)
        return optax.sgd(learning_rate)

    lr_range_test(quadratic(), make, steps=50, seeds=4)
    assert len(traces) == 2  # for the initial state and for the step


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_lr": 0.0}, "finite and above 0, .*got 0.0 and 100.0"),
        ({"min_lr": 2.0, "max_lr": 1.0}, "the second the larger, got 2.0 and 1.0"),
        ({"max_lr": float("inf")}, "got 1e-05 and inf"),
        ({"steps": 1}, "`steps` must be >= 2, got 1"),
        ({"smoothing": 1.0}, r"`smoothing` must be in \[0, 1\), got 1.0"),
        ({"seeds": []}, r"`seeds` must not be empty, got \[\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        lr_range_test(quadratic(), optax.sgd, **arguments)


def test_plotting():
    diverging = result_of([[4.0, 1.0, 9.0], [4.0, 2.0, np.inf]])
    (axes,) = diverging.plot().axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels == [
        "2 seeds, until they diverge",
        "steepest descent: 0.001",
        "between the two: 0.00063",
        "a tenth of divergence: 0.0004",
    ]
    assert axes.get_title() == "t: learning-rate range test"
    assert diverging.plot("mine").axes[0].get_title() == "mine"
    assert axes.get_lines()[0].get_ydata().tolist() == [4.0, 1.0]
    flat = result_of([[1.0, 1.0]])
    assert len(flat.plot().axes[0].get_lines()) == 1


def test_a_loss_that_is_not_a_scalar():
    task = dataclasses.replace(quadratic(), loss=lambda x, batch, key: x)
    with pytest.raises(ValueError, match=r"must be a scalar, got shape \(20,\)"):
        lr_range_test(task, optax.sgd)


def test_a_factory_that_needs_more():
    with pytest.raises(TypeError, match="`make_optimizer` needs `stddev`; bind"):
        lr_range_test(quadratic(), ox.anti_pgd)


def test_ctrl_c_is_raised_after_the_computation():
    traced = []

    def make(learning_rate):
        if not traced:
            signal.raise_signal(signal.SIGINT)
        traced.append(None)
        return optax.sgd(learning_rate)

    with pytest.raises(KeyboardInterrupt):
        lr_range_test(quadratic(), make, steps=5, seeds=1)
    assert len(traced) == 2  # the trace went on
