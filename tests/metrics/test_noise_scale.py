"""The noise scale, of gradients whose mean and covariance are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import optax_extras as ox
from optax_extras import metrics

SIZE, BATCH, STEPS = 200, 4, 400
DEVIATIONS = np.linspace(0.5, 2.0, SIZE)
GRADIENT = np.linspace(-0.3, 0.4, SIZE)
TRACE, SQUARE = np.sum(DEVIATIONS**2), np.sum(GRADIENT**2)
RNG = np.random.default_rng(3)


def gradients(*shape):
    """True gradients, with the noise of batches of `BATCH` examples."""
    noise = RNG.normal(size=(*shape, SIZE)) * DEVIATIONS / np.sqrt(BATCH)
    return jnp.asarray(GRADIENT + noise, jnp.float32)


def averages(small, big, ratio, decay):
    """|G|² and tr Σ by the paper's formulas, averaged; in double precision."""
    b, large = BATCH, BATCH * ratio
    signal = (large * big - b * small) / (large - b)
    trace = (small - big) / (1 / b - 1 / large)
    weights = decay ** np.arange(len(small))[::-1]
    return np.average(signal, weights=weights), np.average(trace, weights=weights)


def squares(x):
    return np.sum(np.asarray(x, np.float64) ** 2, axis=-1)


def state_of(state):
    nodes = jax.tree.leaves(
        state, is_leaf=lambda x: isinstance(x, metrics.NoiseScaleState)
    )
    (found,) = [x for x in nodes if isinstance(x, metrics.NoiseScaleState)]
    return metrics.NoiseScaleState(*map(float, found))


def check_answer(state, decay):
    """Holds an estimate to what is known, within six standard deviations."""
    found = state_of(state)
    effective = min(STEPS, (1 + decay) / (1 - decay))
    signal, trace = found.signal / found.weight, found.variance / found.weight
    per = DEVIATIONS**2 / BATCH  # variances of the gradient of a small batch
    spread = np.sqrt((2 * np.sum(per**2) + 4 * np.sum(per * GRADIENT**2)) / effective)
    assert abs(signal - SQUARE) < 6 * spread
    assert abs(trace - TRACE) < 6 * 2 * BATCH * spread
    scale = ox.recorded(state)["noise_scale"]
    assert scale == pytest.approx(trace / signal, rel=1e-6)
    assert scale == pytest.approx(TRACE / SQUARE, rel=0.25)


def over_micro_batches(tx, grads):
    def step(state, g):
        return tx.update(g, state, jnp.zeros(SIZE))[1], None

    state = tx.init(jnp.zeros(SIZE))
    return jax.jit(lambda s: jax.lax.scan(step, s, grads)[0])(state)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: optax.chain(tx)])
def test_of_micro_batches(every, wrap):
    k, decay = 4, 0.999
    inner = wrap(optax.MultiSteps(optax.sgd(0.0), k).gradient_transformation())
    tx = ox.record(inner, [metrics.noise_scale(BATCH, decay=decay)], every=every)
    grads = gradients(STEPS, k)
    state = over_micro_batches(tx, grads.reshape(-1, SIZE))
    check_answer(state, decay)
    small, big = squares(grads[:, -1]), squares(np.mean(grads, axis=1, dtype=float))
    signal, trace = averages(small, big, k, decay)
    found = state_of(state)
    np.testing.assert_allclose(found.signal / found.weight, signal, rtol=1e-3)
    np.testing.assert_allclose(found.variance / found.weight, trace, rtol=1e-3)
    np.testing.assert_allclose(found.weight, 1 - decay**STEPS, rtol=1e-3)


def test_nothing_is_measured_between_and_with_one_micro_batch():
    grads = gradients(7)
    for k, steps in ((4, 3), (1, 7)):
        tx = ox.record(optax.MultiSteps(optax.sgd(0.1), k), [metrics.noise_scale(2)])
        state = over_micro_batches(tx, grads[:steps])
        assert np.isnan(ox.recorded(state)["noise_scale"])
        assert state_of(state).weight == 0
    tx = ox.record(optax.MultiSteps(optax.sgd(0.1), 4), [metrics.noise_scale(2)])
    four, seven = (over_micro_batches(tx, grads[:n]) for n in (4, 7))
    assert ox.recorded(four) == ox.recorded(seven)
    # A schedule of micro-batches changes their number between steps.
    tx = ox.record(
        optax.MultiSteps(optax.sgd(0.1), lambda step: jnp.where(step == 0, 2, 4)),
        [metrics.noise_scale(BATCH, decay=0.5)],
    )
    found = state_of(over_micro_batches(tx, grads[:6]))
    parts = [(grads[1], grads[:2], 2), (grads[5], grads[2:6], 4)]
    single = [
        averages(squares(x)[None], squares(np.mean(y, axis=0, dtype=float))[None], k, 0)
        for x, y, k in parts
    ]
    expected = np.average(single, axis=0, weights=[0.5, 1])
    np.testing.assert_allclose(found.signal / found.weight, expected[0], rtol=1e-4)
    np.testing.assert_allclose(found.variance / found.weight, expected[1], rtol=1e-4)


def test_skipped_micro_batches_do_not_count():
    inner = optax.MultiSteps(
        optax.sgd(0.1), 2, should_skip_update_fn=optax.skip_not_finite
    )
    tx = ox.record(inner, [metrics.noise_scale(BATCH)])
    grads = gradients(2)
    bad = jnp.full((1, SIZE), jnp.nan)
    found = over_micro_batches(
        tx, jnp.concatenate([bad, grads[:1], bad, grads[1:], bad])
    )
    expected = over_micro_batches(tx, grads)
    assert ox.recorded(found) == ox.recorded(expected)


@pytest.mark.parametrize("every", [1, 2])
def test_of_workers(every):
    decay, mesh = 0.999, jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    metric = metrics.noise_scale(BATCH, decay=decay, axis_name="x")
    tx = ox.record(optax.sgd(0.1), [metric, "grad_norm"], every=every)
    params = {"a": jnp.zeros(50), "b": jnp.zeros(SIZE - 50)}
    grads = gradients(every * STEPS, 8)

    def step(state, g):
        own = {"a": g[0, :50], "b": g[0, 50:]}
        mean = jax.tree.map(lambda x: jax.lax.pmean(x, "x"), own)
        norm = optax.tree.norm(own)
        return tx.update(mean, state, params, local_grad_norm=norm)[1], None

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(None, "x")),
        out_specs=PartitionSpec(),
    )
    def train(state, grads):
        return jax.lax.scan(step, state, grads)[0]

    state = train(tx.init(params), grads)
    check_answer(state, decay)
    used = np.asarray(grads[every - 1 :: every], np.float64)
    small = squares(used).mean(axis=1)
    signal, trace = averages(small, squares(used.mean(axis=1)), 8, decay)
    found = state_of(state)
    np.testing.assert_allclose(found.signal / found.weight, signal, rtol=1e-3)
    np.testing.assert_allclose(found.variance / found.weight, trace, rtol=1e-3)


def test_half_precision_and_none():
    tx = ox.record(
        optax.MultiSteps(optax.sgd(0.1), 2), [metrics.noise_scale(8, decay=0)]
    )
    params = {"h": jnp.ones(64, jnp.bfloat16), "n": None}
    state = tx.init(params)
    for size in (1, 3):
        grads = {"h": (size * params["h"]).astype(jnp.bfloat16), "n": None}
        _, state = tx.update(grads, state, params)
    small, big = 9 * 64, 4 * 64
    assert state_of(state).signal == 2 * big - small
    assert state_of(state).variance == 2 * 8 * (small - big)
    assert ox.recorded(state)["noise_scale"] == 2 * 8 * 5 / -1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size` must be finite and > 0, got 0"),
        ({"batch_size": "4"}, TypeError, "`batch_size` must be a real number"),
        ({"batch_size": 4, "decay": 1.0}, ValueError, r"`decay` must be in \[0, 1\)"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        metrics.noise_scale(**arguments)


def test_a_source_is_needed():
    params = jnp.ones(2)
    for inner in (
        optax.sgd(0.1),
        optax.chain(
            *[optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()] * 2
        ),
    ):
        with pytest.raises(ValueError, match="`noise_scale` needs `axis_name`, or one"):
            ox.record(inner, [metrics.noise_scale(4)]).init(params)
    tx = ox.record(optax.sgd(0.1), [metrics.noise_scale(4, axis_name="x")])
    with pytest.raises(ValueError, match="`local_grad_norm` must be given to `update`"):
        tx.update(params, tx.init(params), params)
