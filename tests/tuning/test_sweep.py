"""Sweeps: every trial is the run alone, and all of them are one program."""

import dataclasses
import signal
import socket
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

import optax_extras as ox
from optax_extras import tuning
from optax_extras.tuning import (
    Goal,
    SweepResult,
    Task,
    batches_of_step,
    digits,
    sweep,
)
from optax_extras.tuning._chunks import fit_chunks
from optax_extras.tuning._points import Points
from optax_extras.tuning._programs import Trials

from plain_loop import train

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


TASK = noisy_quadratic()  # one for all tests, which share its compiled programs


def run(task=TASK, make=optax.sgd, grid=None, **options):
    options = {"steps": 10, "eval_every": 4, "seeds": 3, **options}
    return sweep(task, make, grid or {"learning_rate": RATES}, **options)


MAKES = (optax.sgd, optax.adam)


@pytest.mark.daily("adam")
@pytest.mark.parametrize("make", MAKES)
def test_a_trial_is_the_run_alone(make):
    result = run(make=make)
    assert result.steps.tolist() == [0, 4, 8, 10]
    for i, j in ((0, 2), (2, 0)):
        alone = train(TASK, make(RATES[i]), steps=10, seed=j, eval_every=4)
        for name, values in alone.items():
            np.testing.assert_allclose(
                result.metrics[name][i, j], values, rtol=1e-5, atol=1e-7
            )


@pytest.mark.nightly
def test_a_trial_of_digits_is_the_run_alone():
    task = digits(hidden=8)  # an epoch has seven mini-batches
    result = run(task, grid={"learning_rate": [0.05, 0.1]}, seeds=2, steps=22)
    alone = train(task, optax.sgd(0.1), steps=22, seed=1, eval_every=4)
    for name, values in alone.items():
        np.testing.assert_allclose(result.metrics[name][1, 1], values, rtol=1e-4)


def test_optimizers_meet_the_same_parameters_and_batches():
    one, other = (run(make=make, grid={"learning_rate": [0.0]}) for make in MAKES)
    np.testing.assert_array_equal(one.losses, other.losses)
    np.testing.assert_array_equal(one.metrics["first"], other.metrics["first"])
    assert len(np.unique(one.metrics["first"][..., 0])) == 3


def test_a_trial_does_not_depend_on_the_grid_around_it():
    whole = run()
    for i, rate in enumerate(RATES):  # one program
        alone = run(grid={"learning_rate": [rate]}, seeds=[2])
        np.testing.assert_allclose(
            alone.metrics["first"][0, 0], whole.metrics["first"][i, 2], rtol=1e-6
        )


@pytest.mark.parametrize("size", [1, 2, 7])
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
    np.testing.assert_allclose(result.curves("mean_loss")[0, 0], [1.5, 3.5, 4.5])


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

    task, compiled = noisy_quadratic(), []

    def note(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    def compilations(**options):
        """How often `make` was traced, and how many programs were compiled."""
        traces.clear()
        compiled.clear()
        run(task, make, **options)
        return len(traces), len(compiled)

    grid = {"learning_rate": np.geomspace(1e-3, 1, 64)}
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        traced, built = compilations(grid=grid, seeds=5)
        assert traced == 2  # the initial states, and the steps
        assert built >= 2  # and small ones, such as for the seeds
        for other in ({"seeds": [9, 8, 7, 6, 5]}, {"seeds": 5, "steps": 11}):
            changed = {"learning_rate": grid["learning_rate"] + 1}
            assert compilations(grid=changed, **other) == (0, 0)
        traced, built = compilations(grid=grid, seeds=5, trials_at_once=16)
        assert traced == 2
        assert built <= 4  # with evaluation and JAX's copy of the smaller array
    finally:
        jax.monitoring.clear_event_listeners()


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
        task="t",
        goal=Goal("m", "max"),
        hyperparameters={"lr": np.array([1.0, 2.0])},
        seeds=np.arange(3),
        steps=np.array([0, 1]),
        metrics={"m": -losses},
        losses=losses,
        initial_losses=np.ones((2, 3)),
        compile_seconds=1.0,
        run_seconds=12.0,
        state_bytes_per_parameter=0.0,
        sent_bytes=np.zeros(2, int),
        received_bytes=np.zeros(2, int),
        planned=2,
    )
    assert result.seconds_per_step == 2.0
    for metric in ("loss", "mean_loss", "m", None):
        assert result.best(metric) == {"lr": 2.0}, metric
    assert result.best("m", "max") == {"lr": 2.0}
    assert result.best("m", "min") == result.best("loss", "max") == {"lr": 1.0}
    lost = dataclasses.replace(result, losses=np.where(losses == 4, np.nan, losses))
    assert lost.best("m") == {"lr": 1.0}
    other = dataclasses.replace(result, goal=Goal("loss"))
    assert other.best("m", "max") == {"lr": 2.0}
    with pytest.raises(ValueError, match="'min' or 'max' for metric 'm', got None"):
        other.best("m")


@pytest.mark.parametrize(
    ("first", "last", "gone"),
    [
        ([2.0, 2.0], [1.0, 22.1], [False, True]),  # ten times the first loss
        ([2.0, 2.0], [1.0, 21.9], [False, False]),
        ([-0.1, -0.1], [-5.0, 40.0], [False, False]),  # within ten falls of the best
        ([-0.1, -0.1], [-5.0, 50.0], [False, True]),
        ([0.0, 0.0], [-1.0, np.nan], [False, True]),
        ([np.inf, np.inf], [1.0, 1e30], [False, False]),
        ([np.nan, np.nan], [1.0, np.inf], [False, True]),
    ],
)
def test_losses_far_above_the_first_count_as_diverged(first, last, gone):
    result = run(grid={"learning_rate": [0.1]}, steps=1, seeds=2)
    found = dataclasses.replace(
        result,
        initial_losses=np.array([first]),
        losses=np.array(last)[None, :, None],
    )
    np.testing.assert_array_equal(found.diverged(), [gone])


def test_the_first_loss_is_that_of_the_initial_parameters():
    result = run(eval_every=1, steps=2, trials_at_once=2)
    np.testing.assert_array_equal(result.initial_losses, result.losses[..., 0])
    later = run(eval_every=2, steps=2)
    np.testing.assert_allclose(later.initial_losses, result.initial_losses, rtol=1e-6)
    assert (result.losses[..., 1] != result.initial_losses).all()


@pytest.mark.daily("bfloat16")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_losses_are_averaged_in_float32(dtype):
    task = tuning.quadratic()
    half = dataclasses.replace(task, loss=lambda *args: task.loss(*args).astype(dtype))
    grid = {"learning_rate": [0.1]}
    expected = sweep(task, optax.sgd, grid, steps=7, seeds=2, eval_every=3)
    result = sweep(half, optax.sgd, grid, steps=7, seeds=2, eval_every=3)
    assert result.losses.dtype == np.float32
    np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-2)


def test_seeds_may_be_numpy_integers():
    assert run(steps=1, seeds=np.int64(2)).seeds.tolist() == [0, 1]


def test_progress_ends_at_the_total():
    seen = []
    run(on_progress=lambda done, total: seen.append((done, total)), trials_at_once=2)
    assert seen == [(24, 90), (48, 90), (60, 90), (72, 90), (84, 90), (90, 90)]


def test_saved_results_are_read_back(tmp_path):
    result = run()
    result.save(tmp_path / "sweep.npz")
    read = SweepResult.load(tmp_path / "sweep.npz")
    assert isinstance(read.goal, Goal)
    for field in dataclasses.fields(SweepResult):
        ours, theirs = getattr(result, field.name), getattr(read, field.name)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(ValueError, match=r"other\.npz is not a sweep that `save`"):
        SweepResult.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"grid": {"learning_rate": []}}, ValueError, r"non-empty lists.*\[\] for 'le"),
        ({"grid": {"learning_rate": ["a"]}}, ValueError, "lists of numbers.*'a'"),
        ({"grid": {"learning_rate": 0.1}}, ValueError, "lists of numbers.*got 0.1"),
        (
            {"grid": {"rate": [0.1]}},
            TypeError,
            "does not take `rate`; it takes `learn",
        ),
        ({"make": ox.anti_pgd}, TypeError, "needs `stddev`; bind it with"),
        (
            {"grid": {"learning_rate": [1], "momentum": [1, 2]}, "zipped": True},
            ValueError,
            r"one number of values, got \{'learning_rate': 1, 'momentum': 2\}",
        ),
        ({"seeds": []}, ValueError, r"`seeds` must not be empty, got \[\]"),
        ({"seeds": 0}, ValueError, "`seeds` must not be empty, got 0"),
        ({"steps": 0}, ValueError, "`steps` must be >= 1 and <= .*, got 0"),
        ({"steps": 5.0}, TypeError, "`steps` must be an integer, got 5.0"),
        ({"eval_every": 0}, ValueError, "`eval_every` must be >= 1 and <= .*, got 0"),
        ({"trials_at_once": 0}, ValueError, "`trials_at_once` must be >= 1 and <= "),
        ({"trials_at_once": "2"}, TypeError, "`trials_at_once` must be an integer"),
        (
            {"seeds": 1.5},
            ValueError,
            "number of seeds or a list of integers, got 1.5",
        ),
        ({"seeds": True}, ValueError, "`seeds` must be a number of seeds or a list"),
        ({"seeds": "ab"}, ValueError, "`seeds` must be a number of seeds or a list"),
        ({"seeds": [[0], [1]]}, ValueError, "`seeds` must be a number of seeds or a"),
        ({"seeds": [0, -1]}, ValueError, r"`seeds` must be from 0 to 2\*\*32 - 1, got"),
        ({"seeds": [2**33]}, ValueError, r"`seeds` must be from 0 to 2\*\*32 - 1, got"),
        ({"memory_limit": 0}, ValueError, "`memory_limit` must be >= 1, got 0"),
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
    with pytest.raises(
        ValueError, match="one of loss, mean_loss, distance, first, got 'x'"
    ):
        result.best("x")
    with pytest.raises(ValueError, match="'min' or 'max' for metric 'loss', got 'x'"):
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
    assert "some seeds diverged" in left.get_legend_handles_labels()[1]
    assert "learning_rate = 0.1" in right.get_title()
    losses = right.get_lines()[0].get_ydata()
    assert losses[0] == np.median(result.initial_losses)
    np.testing.assert_allclose(losses[1:], np.median(result.losses[1], axis=0))
    with pytest.raises(ValueError, match="`metric` must be one of"):
        result.plot("x")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_many_devices_give_what_one_gives(kind):
    grid = {"learning_rate": np.geomspace(0.01, 0.5, 11)}
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    one, many = run(grid=grid), run(grid=grid, mesh=mesh)
    chunked = run(grid=grid, mesh=mesh, trials_at_once=8)
    for other in (many, chunked):
        np.testing.assert_allclose(other.losses, one.losses, rtol=1e-5)
        np.testing.assert_allclose(
            other.metrics["first"], one.metrics["first"], rtol=1e-5
        )
    with pytest.raises(ValueError, match="multiple of the mesh's 8 devices, got 3"):
        run(mesh=mesh, trials_at_once=3)


def interrupt_at(done):
    """A progress report that ends like Ctrl-C once so many updates are done."""

    def report(now, total):
        if now >= done:
            raise KeyboardInterrupt

    return report


def test_an_interrupted_sweep_is_resumed_bit_by_bit(tmp_path):
    grid = {"learning_rate": np.geomspace(0.01, 0.5, 7)}
    options = {"grid": grid, "trials_at_once": 2, "make": optax.adam}
    whole = run(**options)
    path = tmp_path / "sweep.npz"
    part = run(**options, resume=path, on_progress=interrupt_at(4 * 30 + 1))
    assert (len(part.losses), part.planned) == (4, 7)
    np.testing.assert_array_equal(part.losses, whole.losses[:4])
    seen = []
    rest = run(
        **options, resume=path, on_progress=lambda done, total: seen.append(done)
    )
    assert seen[0] == 4 * 30 + 2 * 12
    for resumed in (rest, SweepResult.load(path), run(**options, resume=path)):
        assert resumed.planned == len(resumed.losses) == 7
        np.testing.assert_array_equal(resumed.losses, whole.losses)
        for name, values in whole.metrics.items():
            np.testing.assert_array_equal(resumed.metrics[name], values)


KILLED = """
import os, signal, sys
import numpy as np, optax
from optax_extras.tuning import noisy_quadratic, sweep

def die(done, total):
    if done > 130:
        os.kill(os.getpid(), signal.SIGKILL)

grid = {"learning_rate": np.geomspace(0.01, 0.5, 7)}
options = {"steps": 10, "seeds": 3, "trials_at_once": 2, "resume": sys.argv[1]}
sweep(noisy_quadratic(), optax.adam, grid, **options, on_progress=die)
"""


@pytest.mark.slow
def test_a_killed_sweep_is_resumed_bit_by_bit(tmp_path):
    path = tmp_path / "sweep.npz"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(SweepResult.load(path).losses) == 4
    grid = {"learning_rate": np.geomspace(0.01, 0.5, 7)}
    options = {"steps": 10, "seeds": 3, "trials_at_once": 2}
    task = tuning.noisy_quadratic()
    rest = sweep(task, optax.adam, grid, **options, resume=path)
    whole = sweep(task, optax.adam, grid, **options)
    np.testing.assert_array_equal(rest.losses, whole.losses)
    np.testing.assert_array_equal(rest.metrics["value"], whole.metrics["value"])


def test_a_memory_limit_makes_equal_chunks():
    sizes = []

    def programs(rows):
        sizes.append(rows)
        return types.SimpleNamespace(rows=rows, bytes_needed=100 + 10 * rows)

    def fitted(*arguments):
        size, compiled = fit_chunks(programs, *arguments)
        assert compiled.rows == size
        return size

    assert fitted(10, 10, 1, 200) == 10
    assert sizes == [10]
    assert fitted(10, 10, 1, 199) == 5
    assert fitted(10, 10, 1, 149) == 4
    assert fitted(10, 10, 4, 199) == 8
    assert fitted(10, 10, 4, 179) == 4
    assert fitted(7, 3, 1, 1000) == 3
    with pytest.raises(ValueError, match="at least the 110 bytes"):
        fitted(10, 10, 1, 109)


@pytest.mark.slow
def test_a_memory_limit_does_not_change_a_result():
    grid = {"learning_rate": np.geomspace(0.01, 0.5, 12)}
    seen, whole = [], run(grid=grid)
    limited = run(grid=grid, memory_limit=4000, on_progress=lambda *x: seen.append(x))
    assert len(seen) > 3
    np.testing.assert_allclose(limited.losses, whole.losses, rtol=1e-6)
    with pytest.raises(ValueError, match="`memory_limit` must be at least the"):
        run(grid=grid, memory_limit=10)


def test_what_a_sweep_costs():
    result = run(make=optax.adam)
    assert result.state_bytes_per_parameter == 8 + 4 / 4  # two moments and a count
    assert result.compile_seconds > 0
    assert result.seconds_per_step == result.run_seconds / 90


def test_a_factory_that_cannot_be_hashed():
    class Factory:
        __hash__ = None

        def __call__(self, learning_rate):
            return optax.sgd(learning_rate)

    np.testing.assert_array_equal(run(make=Factory()).losses, run().losses)


def test_times_of_finished_chunks_are_kept(tmp_path):
    path = tmp_path / "sweep.npz"
    options = {"trials_at_once": 1, "resume": path}
    part = run(**options, on_progress=interrupt_at(31))
    assert len(part.losses) == 1
    long_ago = {"compile_seconds": 1e6, "run_seconds": 1e6}
    dataclasses.replace(part, **long_ago).save(path)
    rest = run(**options)
    assert rest.compile_seconds > 1e6
    assert rest.run_seconds > 1e6


def test_ctrl_c_is_raised_between_evaluations():
    def press(done, total):
        if done == 4 * 30 + 2 * 12:
            signal.raise_signal(signal.SIGINT)

    grid = {"learning_rate": np.geomspace(0.01, 0.5, 7)}
    part = run(grid=grid, trials_at_once=2, on_progress=press)
    assert (len(part.losses), part.planned) == (4, 7)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_memory_that_is_counted():
    numbers = 2_500_000  # a state of 10 MB, donated from step to step

    def heavy(learning_rate):
        def update(updates, state, params=None):
            return jax.tree.map(lambda g: -learning_rate * g, updates), state + 1

        return optax.GradientTransformation(lambda params: jnp.zeros(numbers), update)

    def evaluate(x):  # 4 MB at once
        return {"m": jnp.sum(jnp.sort(jnp.add.outer(x, x), axis=0))}

    task = noisy_quadratic(
        init=lambda key: jnp.zeros(1000),
        loss=lambda x, batch, key: jnp.sum(x**2),
        evaluate=evaluate,
    )
    rates = {"learning_rate": jnp.ones(1)}
    trials = Trials(task, heavy, 5, None, Points())
    compiled = trials.compile(rates, jnp.zeros(1, jnp.uint32))
    assert 13e6 < compiled.bytes_needed < 19e6
    assert compiled.state_bytes_per_parameter == 4 * numbers / 1000


def test_an_interrupt_before_the_first_chunk_is_passed_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(resume=tmp_path / "sweep.npz", on_progress=interrupt_at(1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": {"learning_rate": [0.5, 0.1, 1.0]}}, "its learning_rate are"),
        ({"grid": {"learning_rate": RATES, "momentum": [0.0]}}, "hyperparameters are"),
        ({"seeds": 2}, r"its seeds are \[0 1 2\], not \[0 1\]"),
        ({"steps": 12}, "its steps are"),
        ({"task": noisy_quadratic(name="other")}, "its task are quadratic, not other"),
    ],
)
def test_the_file_of_another_sweep_is_refused(tmp_path, change, message):
    path = tmp_path / "sweep.npz"
    run(resume=path)
    with pytest.raises(ValueError, match=message):
        run(**{"resume": path, **change})


PROCESS = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import numpy as np, optax
from optax_extras.tuning import noisy_quadratic, sweep
assert jax.device_count() == 4
mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
grid = {"learning_rate": np.geomspace(0.01, 0.5, 6)}
result = sweep(noisy_quadratic(), optax.adam, grid, steps=10, seeds=2, mesh=mesh)
result.save(sys.argv[3] + sys.argv[2] + ".npz")
"""


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(i), str(tmp_path / "part")]
        )
        for i in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    grid = {"learning_rate": np.geomspace(0.01, 0.5, 6)}
    one = sweep(tuning.noisy_quadratic(), optax.adam, grid, steps=10, seeds=2)
    for i in range(2):
        result = SweepResult.load(tmp_path / f"part{i}.npz")
        np.testing.assert_allclose(result.losses, one.losses, rtol=1e-5, atol=1e-7)
