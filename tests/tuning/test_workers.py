"""Sweeps whose trials several workers train together."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras import compressors
from optax_extras.tasks import Batches
from optax_extras.tuning import (
    Comparison,
    SweepResult,
    Task,
    batches_of_step,
    minibatches,
    sweep,
)
from optax_extras.tuning._workers import Workers, _at_step, traffic

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


def alone(inner, every):
    """Workers that train apart, and take the mean of their parameters."""

    def make(learning_rate, outer_rate=1.0):
        return ox.fedavg(
            inner(learning_rate), every, outer_rate, axis_name=AXIS, workers=N
        )

    return make


def points(target, client_sizes=()):
    """Each worker's loss is its distance to a point, which depends on the step."""

    def plan(key, first, length):
        return first + jnp.arange(length)

    def loss(weights, batch, key):
        return jnp.mean(jnp.sum((weights[None] - batch) ** 2, axis=1)) / 2

    return Task(
        "points",
        lambda key: jax.random.normal(key, (3,)),
        Batches(plan, lambda step: jnp.asarray(target)[step], client_sizes),
        loss,
        lambda weights: {f"w{i}": weights[i] for i in range(3)},
    )


@pytest.mark.parametrize("sizes", [(), (1, 2, 3, 14)])
def test_workers_train_apart(sizes):
    """Against a loop in NumPy, whose workers see unlike data."""
    steps, every = 7, 3
    target = np.random.default_rng(1).normal(size=(steps, N, 3)).astype(np.float32)
    grid = {"learning_rate": [0.1, 0.5], "outer_rate": [0.4, 1.0]}
    found = sweep(
        points(target, sizes),
        alone(optax.sgd, every),
        grid,
        steps=steps,
        seeds=2,
        eval_every=1,
        worker_mesh=mesh_of(),
    )
    metrics = np.stack([found.metrics[f"w{i}"] for i in range(3)], axis=-1)
    assert np.ptp(metrics[:, :, 0], axis=1).min() > 0.1  # the seeds differ
    rates = (found.hyperparameters[name] for name in grid)
    for row, (rate, outer_rate) in enumerate(zip(*rates, strict=True)):
        for seed in range(2):
            reference = metrics[row, seed, 0]
            workers = np.stack([reference] * N)
            for number in range(steps):
                gradients = workers - target[number]
                loss = np.sum(gradients**2, axis=1).mean() / 2
                np.testing.assert_allclose(
                    found.losses[row, seed, number], loss, rtol=1e-5
                )
                workers = workers - rate * gradients
                if (number + 1) % every == 0:
                    mean = np.average(workers, axis=0, weights=sizes or None)
                    reference = reference + outer_rate * (mean - reference)
                    workers = np.stack([reference] * N)
                np.testing.assert_allclose(
                    metrics[row, seed, number + 1], reference, rtol=1e-5, atol=1e-6
                )


def test_points_of_workers_that_train_apart(tmp_path):
    """Workers with the same data are like one."""
    data = np.random.default_rng(2).normal(size=(6, 1, 3)).astype(np.float32)
    one, four = points(data), points(np.repeat(data, N, axis=1))
    single = run(one, ox.nesterov_lookahead, GRID)
    options = {"worker_mesh": mesh_of(), "resume": tmp_path / "sweep.npz"}
    apart = partial(run, four, alone(ox.nesterov_lookahead, every=3), GRID, **options)
    found = apart()
    np.testing.assert_allclose(found.losses, single.losses, rtol=1e-5)
    np.testing.assert_allclose(found.metrics["w0"], single.metrics["w0"], rtol=1e-5)
    np.testing.assert_array_equal(apart().losses, found.losses)
    halved = run(
        four,
        alone(ox.nesterov_lookahead, every=3),
        GRID,
        worker_mesh=mesh_of(),
        eval_params=lambda state, params: params / 2,
    )
    np.testing.assert_allclose(halved.metrics["w0"], found.metrics["w0"] / 2, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [DENSE, alone(optax.sgd, every=3), partial(ox.demo, axis_name=AXIS, workers=N)],
)
def test_one_step_of_all_trials_has_one_number(make):
    """So that `jax.vmap` leaves the branches of a step as branches."""
    state = make(0.1).init(jnp.zeros(3))

    def count(factor):
        moved = jax.tree.map(lambda x: x + factor.astype(x.dtype), state)
        counts = optax.tree.get_all_with_path(_at_step(moved, jnp.int32(5)), "count")
        return [value for path, value in counts]

    # This fails for a count that differs between the trials.
    (found,) = jax.vmap(count, out_axes=None)(jnp.arange(2))
    assert found == 5


def test_weights_travel_too():
    params, steps = jnp.zeros(1200), np.array([0, 1])
    plain, weighted = (
        traffic(DENSE(0.1), params, Workers(mesh_of(), weights), steps)
        for weights in ((), (1, 2, 3, 4))
    )
    one = 2 * 4 * (N - 1) // N  # a float32
    np.testing.assert_array_equal(weighted - plain, [[0, one], [0, one]])


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
            "local": alone(optax.sgd, every=4),
        }.items()
    }
    dense, coded, local = Comparison(sweeps).summaries()
    assert 2.5 < dense.sent_bytes / coded.sent_bytes < 8
    _, right, *_ = Comparison(sweeps).plot().axes
    assert right.get_xlabel() == "megabytes sent by a worker"
    assert right.get_xscale() == "log"
    line = right.lines[0]
    np.testing.assert_allclose(line.get_xdata(), sweeps["dense"].sent_bytes[1:] / 1e6)
    sent = sweeps["local"].sent_bytes  # nothing before the fourth step
    assert sent[1] == 0 < sent[2]
    assert local.sent_bytes == sent[2] < dense.sent_bytes / 5
    drawn = [list(line.get_xdata()) for line in right.lines]
    assert [sent[2] / 1e6] in drawn
    # The reference, and beside it a few numbers: not the parameters of the workers.
    assert sweeps["local"].state_bytes_per_parameter == pytest.approx(4, abs=0.1)
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
