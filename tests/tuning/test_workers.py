"""Sweeps whose trials several workers train together."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras import compressors
from optax_extras.tuning import (
    Comparison,
    SweepResult,
    Task,
    batches_of_step,
    minibatches,
    sweep,
)

pytestmark = pytest.mark.slow

AXIS, N = "data", 4
GRID = {"learning_rate": [0.01, 0.1]}


def mesh_of(names=(AXIS,), shape=(N,)):
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, names, devices=devices)


def regression(batch_size=8):
    x = np.random.default_rng(0).normal(size=(32, 1200)).astype(np.float32)
    y = x[:, 0]

    def loss(weights, batch, key):
        x, y = batch
        # A scan from zeros, which vary over no axis.
        total, _ = jax.lax.scan(
            lambda total, row: (total + jnp.mean((row[0] @ weights - row[1]) ** 2), 0),
            jnp.zeros(()),
            (x[:, None], y[:, None]),
        )
        return total / len(x)

    return Task(
        "regression",
        lambda key: jnp.zeros(1200),
        minibatches((x, y), batch_size),
        loss,
        lambda weights: {"error": loss(weights, (x, y), None)},
    )


def after(compressor):
    """SGD after a mean over the workers."""

    def make(learning_rate):
        mean = ox.compressed_mean(compressor, AXIS, workers=N)
        return optax.chain(mean, optax.sgd(learning_rate))

    return make


DENSE = after(compressors.Dense())
run = partial(sweep, steps=6, seeds=2, eval_every=3)


def test_dense_workers_train_like_one_device():
    task = regression()
    alone = run(task, optax.sgd, GRID)
    together = run(task, DENSE, GRID, worker_mesh=mesh_of())
    np.testing.assert_allclose(together.losses, alone.losses, rtol=1e-5)
    np.testing.assert_allclose(
        together.metrics["error"], alone.metrics["error"], rtol=1e-5
    )
    assert together.communicates
    assert not alone.communicates
    assert "sent_bytes" not in alone.columns()


def test_workers_draw_keys_of_their_own():
    def loss(weights, batch, key):
        return jnp.sum(weights) * jax.random.normal(key) + 0 * jnp.sum(batch)

    task = Task(
        "noise",
        lambda key: jnp.zeros(1),
        minibatches(np.zeros((8, 1), np.float32), 8),
        loss,
        lambda weights: {"weight": weights[0]},
    )
    both = {"learning_rate": [1.0]}
    one = sweep(task, optax.sgd, both, steps=1, seeds=200)
    four = sweep(task, DENSE, both, steps=1, seeds=200, worker_mesh=mesh_of())
    spread = [np.std(s.metrics["weight"][0, :, -1]) for s in (one, four)]
    assert 0.4 < spread[1] / spread[0] < 0.6  # half, of four independent draws


def test_bytes_are_those_of_every_step(tmp_path):
    task = regression()
    make = partial(
        ox.deep_gradient_compression,
        density=0.01,
        axis_name=AXIS,
        workers=N,
        warmup_steps=4,
    )
    result = run(task, make, GRID, worker_mesh=mesh_of(), resume=tmp_path / "s.npz")
    steps = [
        ox.wire_bytes(
            make(0.1), jnp.zeros(1200), axis_name=AXIS, workers=N, step=number
        )
        for number in range(6)
    ]
    assert len({one.sent for one in steps}) == 4
    sent = np.cumsum([0, *(one.sent for one in steps)])
    received = np.cumsum([0, *(one.received for one in steps)])
    np.testing.assert_array_equal(result.sent_bytes, sent[[0, 3, 6]])
    np.testing.assert_array_equal(result.received_bytes, received[[0, 3, 6]])
    loaded = SweepResult.load(tmp_path / "s.npz")
    np.testing.assert_array_equal(loaded.sent_bytes, result.sent_bytes)
    resumed = run(task, make, GRID, worker_mesh=mesh_of(), resume=tmp_path / "s.npz")
    np.testing.assert_array_equal(resumed.received_bytes, result.received_bytes)
    np.testing.assert_array_equal(result.columns()["sent_bytes"][:3], result.sent_bytes)


def now_and_then(learning_rate):
    """SGD on means that are taken at steps 1, 4, ..., and on nothing at the others."""

    def update(grads, state, params=None):
        del params
        means = jax.lax.cond(
            state.count % 3 == 1,
            lambda g: jax.lax.pmean(g, AXIS),
            lambda g: 0 * g,
            grads,
        )
        return means, state._replace(count=state.count + 1)

    def init(params):
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    stage = optax.GradientTransformation(init, update)
    return optax.chain(stage, optax.sgd(learning_rate))


def test_bytes_of_steps_that_send_now_and_then():
    one = 2 * 4 * 1200 * (N - 1) // N
    apart = partial(run, regression(), now_and_then, GRID, worker_mesh=mesh_of())
    result = apart(eval_every=4)  # steps 0 and 3 send nothing, and step 1 does
    np.testing.assert_array_equal(result.sent_bytes, [0, one, 2 * one])
    with pytest.raises(ValueError, match="but it sends nothing with steps=1"):
        apart(steps=1)


def test_a_comparison_is_drawn_over_the_bytes():
    task = regression()
    sweeps = {
        name: run(task, make, GRID, worker_mesh=mesh_of())
        for name, make in {
            "dense": DENSE,
            "8 bit": after(compressors.quantized(8)),
        }.items()
    }
    dense, coded = Comparison(sweeps).summaries()
    assert 2.5 < dense.sent_bytes / coded.sent_bytes < 8
    _, right, *_ = Comparison(sweeps).plot().axes
    assert right.get_xlabel() == "megabytes sent by a worker"
    assert right.get_xscale() == "log"
    line = right.lines[0]
    np.testing.assert_allclose(line.get_xdata(), sweeps["dense"].sent_bytes[1:] / 1e6)
    mixed = Comparison({**sweeps, "alone": run(task, optax.sgd, GRID)})
    assert mixed.plot().axes[1].get_xlabel() == "step"


@pytest.mark.parametrize(
    ("task", "make", "options", "message"),
    [
        (regression(), DENSE, {"mesh": mesh_of()}, "`mesh` must be None with"),
        (
            regression(),
            DENSE,
            {"worker_mesh": mesh_of(("a", "b"), (2, 2))},
            r"`worker_mesh` must have one axis, got \('a', 'b'\)",
        ),
        (
            regression(6),
            DENSE,
            {},
            r"4 devices.*'regression' must have a multiple.*\(6, 1200\)",
        ),
        (
            Task(
                "scalars",
                lambda key: jnp.zeros(3),
                batches_of_step(lambda key, step: step),
                lambda weights, batch, key: jnp.sum(weights),
                lambda weights: {},
            ),
            DENSE,
            {},
            r"'scalars' must have a multiple",
        ),
        (regression(), optax.sgd, {}, "over 'data'.*but it sends nothing"),
    ],
)
def test_what_cannot_be_trained_together(task, make, options, message):
    with pytest.raises(ValueError, match=message):
        run(task, make, GRID, **{"worker_mesh": mesh_of(), **options})
