"""What `record` keeps in the states of trials, as curves of a sweep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras import metrics
from optax_extras.tasks import minibatches
from optax_extras.tuning import Goal, SweepResult, Task, batches_of_step, sweep

GRID = {"learning_rate": [0.01, 0.1, 0.3]}


def task(**changes):
    """A parabola with noise, in two layers."""

    def loss(params, batch, key=None):
        return jnp.sum((params["w"] - batch) ** 2)

    parts = {
        "name": "parabola",
        "init": lambda key: {"w": jax.random.normal(key, (2, 3))},
        "batches": batches_of_step(
            lambda key, step: (
                0.1 * jax.random.normal(jax.random.fold_in(key, step), (2, 3))
            )
        ),
        "loss": loss,
        "evaluate": lambda params: {"m": loss(params, 0.0)},
        "goal": Goal("m"),
    }
    return Task(**{**parts, **changes})


TASK = task()
WANTED = ["grad_norm", "first_nonfinite", metrics.update_norm("layer", {"w": 0})]
NAMES = ["first_nonfinite", "grad_norm", "update_norm/w/0", "update_norm/w/1"]


def make(learning_rate, every=3):
    recorded = ox.record(optax.sgd(learning_rate), WANTED, every=every)
    return optax.chain(optax.clip_by_global_norm(1.0), recorded)


run = partial(sweep, steps=6, eval_every=2, seeds=2)


@pytest.fixture(scope="module")
def result():
    return run(TASK, make, GRID)


def test_curves_are_those_of_single_trials(result):
    assert list(result.recorded) == NAMES
    assert {x.shape for x in result.recorded.values()} == {(3, 2, 4)}
    for row, rate in enumerate(GRID["learning_rate"]):
        # After the clip, the norm is 1 until the loss is below 1/4.
        grads, updates = (
            result.recorded[n][row] for n in ("grad_norm", "update_norm/w/0")
        )
        other = result.recorded["update_norm/w/1"][row]
        assert np.isnan(grads[:, :2]).all()
        np.testing.assert_array_equal(result.recorded["first_nonfinite"][row], -1)
        np.testing.assert_allclose(np.hypot(updates, other), rate * grads, rtol=1e-5)
        assert (grads[:, 2] <= 1.00001).all()
    np.testing.assert_allclose(result.recorded["grad_norm"][0, :, 2:], 1, rtol=1e-5)


def test_recording_does_not_change_the_trials(result):
    def bare(learning_rate):
        return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(learning_rate))

    alone = run(TASK, bare, GRID)
    np.testing.assert_allclose(alone.losses, result.losses, rtol=1e-6)
    assert alone.recorded == {}
    assert result.state_bytes_per_parameter > alone.state_bytes_per_parameter


def test_statistics_and_columns(result):
    norms = result.recorded["grad_norm"]
    np.testing.assert_array_equal(result.curves("grad_norm"), norms)
    np.testing.assert_array_equal(result.course("grad_norm"), norms)
    np.testing.assert_array_equal(result.final("grad_norm"), norms[..., -1])
    assert np.isnan(result.initial("grad_norm")).all()
    columns = result.columns()
    assert list(columns) == ["learning_rate", "seed", "step", "loss", "m", *NAMES]
    np.testing.assert_array_equal(columns["grad_norm"], norms.ravel())
    assert result.best("update_norm/w/0", "min") == {
        "learning_rate": pytest.approx(0.01)
    }
    with pytest.raises(ValueError, match=r"must be one of loss, .*grad_norm"):
        result.curves("norm")


def test_what_is_not_measured_is_no_divergence():
    result = run(TASK, partial(make, every=100), GRID)
    assert np.isnan(result.recorded["grad_norm"]).all()
    assert not result.diverged().any()
    result.plot("grad_norm")


@pytest.mark.parametrize("metric", ["grad_norm", "update_norm/w/1", "first_nonfinite"])
def test_pictures(result, metric):
    axes = result.plot(metric).axes[0]
    assert axes.get_ylabel() == f"{metric} after 6 steps"
    drawn = axes.lines[0].get_ydata()
    np.testing.assert_allclose(drawn, np.median(result.final(metric), axis=1))


def test_files_and_chunks(result, tmp_path):
    path = tmp_path / "sweep.npz"

    def stop(done, total):
        if done > 12:
            raise KeyboardInterrupt

    options = {"trials_at_once": 1, "resume": path}
    first = run(TASK, make, GRID, on_progress=stop, **options)
    assert first.recorded["grad_norm"].shape == (1, 2, 4)
    whole = run(TASK, make, GRID, **options)
    for found in (whole, SweepResult.load(path)):
        assert list(found.recorded) == NAMES
        for name, values in result.recorded.items():
            np.testing.assert_allclose(found.recorded[name], values, rtol=1e-5)
            assert found.recorded[name].dtype == values.dtype
    with pytest.raises(
        ValueError, match="its optimizer or its task computes something"
    ):
        run(TASK, partial(make, every=2), GRID, **options)


def test_rows_on_several_devices(result):
    mesh = jax.make_mesh((3,), ("rows",), devices=jax.devices()[:3])
    spread = run(TASK, make, GRID, mesh=mesh)
    for name, values in result.recorded.items():
        np.testing.assert_allclose(spread.recorded[name], values, rtol=1e-5)


def over_workers(wrap):
    data = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    loss = lambda w, batch, key=None: jnp.mean((batch @ w - 1) ** 2)  # noqa: E731
    several = Task(
        "regression",
        lambda key: jax.random.normal(key, (3,)),
        minibatches(data, 8),
        loss,
        lambda w: {"m": loss(w, jnp.asarray(data))},
        Goal("m"),
    )
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    return run(several, wrap, {"learning_rate": [0.1]}, worker_mesh=mesh), run(
        several,
        lambda learning_rate: ox.record(optax.sgd(learning_rate), ["grad_norm"]),
        {"learning_rate": [0.1]},
    )


def test_workers_that_share_the_mean():
    def make(learning_rate):
        mean = ox.compressed_mean(ox.compressors.Dense(), "data", workers=4)
        return optax.chain(mean, ox.record(optax.sgd(learning_rate), ["grad_norm"]))

    together, alone = over_workers(make)
    norms = [x.recorded["grad_norm"] for x in (together, alone)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    assert np.isfinite(norms[0][..., 1:]).all()


@pytest.mark.nightly
def test_records_of_single_workers_are_left_out():
    def make(learning_rate):
        inner = ox.record(optax.sgd(learning_rate), ["grad_norm"])
        return ox.local_updates(inner, optax.sgd(1.0), 2, axis_name="data", workers=4)

    apart, _ = over_workers(make)
    assert apart.recorded == {}


def named(*names):
    def make(learning_rate):
        return ox.record(
            optax.sgd(learning_rate), dict.fromkeys(names, metrics.grad_norm())
        )

    return make


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("m", "a metric of the task"),
        ("learning_rate", "a hyperparameter"),
        *(
            (name, "what every result has")
            for name in ("loss", "mean_loss", "seed", "step")
        ),
        ("sent_bytes", "what every result has"),
        ("received_bytes", "what every result has"),
    ],
)
def test_names_that_are_taken(name, kind):
    with pytest.raises(ValueError, match=f"got '{name}', the name of {kind}"):
        run(TASK, named("x", name), GRID)


def test_two_records_with_one_name():
    def make(learning_rate):
        return optax.chain(named("x")(1.0), named("x")(learning_rate))

    with pytest.raises(ValueError, match="different names, got 'x' twice"):
        run(TASK, make, GRID)
