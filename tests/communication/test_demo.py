"""DeMo against the equations of its reference, with SciPy's cosine transforms."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.fft
from jax.sharding import PartitionSpec as P

import optax_extras as ox
from optax_extras import compressors as c

from communication.test_mean import bf16, mean_of
from communication.workers import N, gradients, mesh_of, run, start, step_of
from specs import spec

STEPS = 20
# No axis but one is a multiple of a chunk; "few" is smaller than one, and sent whole.
SHAPES = {"few": (3, 2), "t": (3, 5, 40), "v": (97,), "w": (48, 35), "z": (0, 3)}
RATES = np.linspace(0.1, 0.01, STEPS, dtype="f4")


def demo(**options):
    return ox.demo(
        lambda count: jnp.asarray(RATES)[count],
        **{"k": 8, "chunk": 16, "axis_name": "data", "workers": N, **options},
    )


SPECS = [
    spec(
        ox.demo,
        learning_rate=0.01,
        decay=0.9,
        weight_decay=0.1,
        schedules=("learning_rate", "weight_decay"),
        static={"axis_name": "data", "workers": 2},
        axis_name="data",
        workers=2,
        state_specs=lambda state: ox.worker_specs(state, "data"),
        supports={"descent"},
        buffers=2,
        temporaries=20,
    )
]


def blocks_of(shape, chunk):
    """Slices of the blocks of a leaf as a matrix."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    for first in itertools.product(range(0, rows, chunk), range(0, columns, chunk)):
        yield tuple(slice(i, i + chunk) for i in first)


def padded(block, shape, chunk):
    """A block that ends beyond the matrix, with zeros there."""
    whole = np.zeros([min(chunk, n) for n in shape])
    whole[tuple(map(slice, block.shape))] = block
    return whole


def exchanged(delta, k, chunk):
    """What each worker takes out of its momentum, and the mean over the senders."""
    shape = delta.shape[1:]
    matrices = delta.reshape(N, math.prod(shape[:-1]), shape[-1])
    taken, mean = np.zeros_like(matrices), np.zeros_like(matrices[0])
    for part in blocks_of(shape, chunk):
        sums, senders = 0, 0
        for i in range(N):
            block = matrices[i][part]
            waves = scipy.fft.dctn(padded(block, mean.shape, chunk), norm="ortho")
            sent = np.zeros(waves.size)
            best = np.argsort(-np.abs(waves).reshape(-1), kind="stable")[:k]
            sent[best] = waves.reshape(-1)[best]
            if k < waves.size:
                sent = bf16(sent)
            sent = sent.reshape(waves.shape)
            back = scipy.fft.idctn(sent, norm="ortho")
            taken[i][part] = back[tuple(map(slice, block.shape))]
            sums, senders = sums + sent, senders + (sent != 0)
        back = scipy.fft.idctn(sums / np.maximum(senders, 1), norm="ortho")
        mean[part] = back[tuple(map(slice, block.shape))]
    return taken.reshape(delta.shape), mean.reshape(shape)


def oracle(grads, k, chunk, decay):
    """The means of every step, and the momentum of every worker behind them."""
    deltas = {name: np.zeros((N, *shape)) for name, shape in SHAPES.items()}
    for t in range(STEPS):
        means = {}
        for name in SHAPES:
            given = grads[name][t].astype(np.float64)
            delta = decay * deltas[name] + float(RATES[t]) * given
            taken, means[name] = exchanged(delta, k, chunk)
            deltas[name] = delta - taken
        yield means, deltas


@pytest.mark.slow
@pytest.mark.parametrize(("k", "chunk"), [(8, 16), (32, 64)])
def test_the_reference(k, chunk):
    grads = gradients(STEPS, shapes=SHAPES)
    options = {"decay": 0.99, "min_size": 0, "average": "senders"}
    means, state = run(
        mean_of(c.dct_top_k(k, chunk=chunk), **options),
        {name: (g.T * RATES).T for name, g in grads.items()},
    )
    moved, _ = run(demo(k=k, chunk=chunk, decay=0.99), grads)
    off, deltas = 0, None
    for t, step in enumerate(oracle(grads, k, chunk, 0.99)):
        expected, deltas = step
        for name, mean in expected.items():
            large = np.abs(mean).max(initial=0)
            error = np.abs(means[name][t] - mean).max(initial=0)
            # Where float32 and float64 are halfway between two numbers of bfloat16.
            off += error > 1e-5 * large
            assert error <= 0.05 * large
            sure = np.abs(mean) > 0.05 * large
            np.testing.assert_allclose(
                moved[name][t][sure], -RATES[t] * np.sign(mean)[sure], rtol=1e-6
            )
    assert off <= 3
    for name, kept in state.residual.value.items():
        if kept is not None:
            np.testing.assert_allclose(kept, deltas[name], atol=5e-3)


def test_weight_decay_is_decoupled():
    grads = gradients(3, shapes={"w": (48, 35)})
    tx = demo(weight_decay=0.5)
    state, specs = start(tx, {"w": jnp.zeros((48, 35))}, mesh_of())
    step = step_of(tx, mesh_of(), specs)
    params = {"w": jnp.full((48, 35), 2.0)}
    without, _ = run(demo(), grads)
    for t in range(3):
        updates, state = step({"w": grads["w"][t]}, state, params)
        expected = without["w"][t] - RATES[t] * 0.5 * 2
        np.testing.assert_allclose(updates["w"], expected, atol=1e-7)
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        step({"w": grads["w"][0]}, state, None)


@pytest.mark.parametrize("bad", [np.nan, 1e37])
def test_nothing_moves_in_a_step_that_is_skipped(bad):
    """1e37 is finite, but its transform is not."""
    grads = gradients(3, shapes={"b": (5,), "w": (20, 30)})
    grads["w"][1, 2, 0, 0] = bad
    tx = demo(weight_decay=0.5)
    params = jax.tree.map(lambda g: jnp.ones(g.shape[2:]), grads)
    state, specs = start(tx, params, mesh_of())
    step = step_of(tx, mesh_of(), specs)
    for t in range(3):
        before = state
        updates, state = step(jax.tree.map(lambda g, t=t: g[t], grads), state, params)
        same = [
            np.array_equal(x, y)
            for x, y in zip(
                *map(jax.tree.leaves, (state.residual, before.residual)), strict=True
            )
        ]
        for u in updates.values():
            assert np.isfinite(u).all()
        assert all(not np.any(u) for u in updates.values()) == (t == 1)
        assert all(same) == (t == 1)
    assert int(state.skipped) == 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.complex64])
def test_other_dtypes(dtype):
    """Products of float16 gradients and a small rate would be 0."""
    given = gradients(3, shapes={"w": (48, 35)})["w"] * 1e-4
    given = given * (1 - 2j) if dtype == jnp.complex64 else given
    grads = {"w": jnp.asarray(given, dtype)}
    tx = ox.demo(1e-3, axis_name="data", workers=N)
    found, state = run(tx, grads)
    assert found["w"].dtype == dtype
    if dtype == jnp.complex64:
        parts = np.stack([found["w"].real, found["w"].imag])
        np.testing.assert_allclose(np.abs(parts), 1e-3, rtol=1e-6)
    else:
        expected, _ = run(tx, {"w": np.asarray(grads["w"], "f4")})
        np.testing.assert_array_equal(found["w"], expected["w"].astype(dtype))
        assert np.count_nonzero(found["w"]) > 0.99 * found["w"].size
    assert {x.dtype for x in jax.tree.leaves(state.residual)} == {jnp.dtype("f4")}


@pytest.mark.slow
def test_workers_stay_the_same_to_the_bit():
    tx, mesh = demo(weight_decay=0.1), mesh_of()
    params = {"v": jnp.zeros(97), "w": jnp.zeros((48, 35))}
    state, specs = start(tx, params, mesh)

    def steps(params, state):
        def step(carry, number):
            params, state = carry
            mine = jax.lax.axis_index("data") + number
            grads = jax.tree.map(lambda p: jnp.sin(mine + 9 * p), params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        carry, _ = jax.lax.scan(step, (params, state), jnp.arange(200.0))
        return jax.tree.map(lambda p: p[np.newaxis], carry[0])

    mapped = jax.shard_map(
        steps, mesh=mesh, in_specs=(P(), specs), out_specs=P("data"), check_vma=False
    )
    for copies in jax.jit(mapped)(params, state).values():
        assert (copies == copies[:1]).all()
        assert jnp.abs(copies).max() > 0.1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"decay": 1.0}, ValueError, r"`decay` must be in \[0, 1\)"),
        ({"k": 0}, ValueError, "`k` must be >= 1"),
        ({"chunk": 2.0}, TypeError, "`chunk` must be an integer"),
        ({"weight_decay": -1.0}, ValueError, "`weight_decay` must be finite and >= 0"),
        ({"workers": 0}, ValueError, "`workers` must be >= 1"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        demo(**options)
    with pytest.raises(ValueError, match="`learning_rate` must be finite and >= 0"):
        ox.demo(-1.0, axis_name="data", workers=N)
