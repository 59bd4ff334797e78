"""Compressed means: oracles, conservation, guards, and what happens on any mesh."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras import compressors as c

from communication.workers import SHAPES, N, gradients, mesh_of, run, start, step_of
from specs import spec

STEPS = 20
MEAN = {"axis_name": "data", "workers": N}


SPECS = [
    spec(
        ox.compressed_mean,
        static={
            "compressor": c.top_k(0.5),
            "axis_name": "data",
            "workers": 2,
            "min_size": 2,
        },
        axis_name="data",
        workers=2,
        state_specs=lambda state: ox.worker_specs(state, "data"),
        buffers=2,
        temporaries=20,
    )
]


def mean_of(compressor, **options):
    return ox.compressed_mean(compressor, **{**MEAN, **options})


def bf16(x):
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def keep_top(x, density, chunk=None):
    """What a worker sends of a leaf."""
    flat = x.reshape(-1)
    width = min(chunk or flat.size, flat.size)
    sent = np.zeros_like(flat)
    k = int(np.ceil(density * width))
    for first in range(0, flat.size, width):
        row = flat[first : first + width]
        best = np.argsort(-np.abs(row), kind="stable")[:k]
        sent[first + best] = bf16(row[best])
    return sent.reshape(x.shape)


def rows_of(x, block):
    flat = x.reshape(-1)
    return np.pad(flat, (0, -flat.size % block)).reshape(-1, block)


def rounded(rows, counts, bits, scale="mean"):
    """What codes of some bits stand for; `counts` of each row are no padding."""
    inside = np.arange(rows.shape[1]) < counts[:, None]
    magnitude = np.abs(rows)
    mean = magnitude.sum(1, keepdims=True) / np.maximum(counts[:, None], 1)
    if bits >= 4:
        top = 2 ** (bits - 1) - 1
        most = magnitude.max(1, keepdims=True)
        unit = np.where(most > 0, most, 1)
        return np.round(rows / unit * top) / top * unit
    if bits == 2:
        large = magnitude > mean
        numbers = large.sum(1, keepdims=True)
        high = (magnitude * large).sum(1, keepdims=True) / np.maximum(numbers, 1)
        rest = np.maximum(counts[:, None] - numbers, 1)
        low = (magnitude * ~large).sum(1, keepdims=True) / rest
        size = np.where(large, high, low)
    elif scale == "mean":
        size = mean
    else:
        square = (rows**2).sum(1, keepdims=True) / np.maximum(counts[:, None], 1)
        size = np.sqrt(square)
    return np.where(inside, np.where(rows < 0, -size, size), 0)


def quantized_oracle(grads, bits, block=64, scale="mean"):
    """Updates of the two compressed leaves, (steps, elements)."""
    names = ["e", "w"]
    sizes = [int(np.prod(SHAPES[name])) for name in names]
    counts = np.concatenate(
        [
            np.clip(size - block * np.arange(-(-size // block)), 0, block)
            for size in sizes
        ]
    )
    part = -(-len(counts) // N)
    counts = np.pad(counts, (0, N * part - len(counts)))
    residual = np.zeros((N, N * part, block))
    server = np.zeros((N * part, block))
    for t in range(STEPS):
        sent = []
        for i in range(N):
            rows = np.concatenate([rows_of(grads[n][t, i], block) for n in names])
            rows = np.pad(rows, ((0, N * part - len(rows)), (0, 0))) + residual[i]
            sent.append(rounded(rows, counts, bits, scale))
            residual[i] = rows - sent[-1]
        mean = np.mean(sent, axis=0) + server
        out = rounded(mean, counts, bits, scale)
        server = mean - out
        first = -(-sizes[0] // block)
        yield (
            out[:first].reshape(-1)[: sizes[0]].reshape(SHAPES["e"]),
            out[first:].reshape(-1)[: sizes[1]].reshape(SHAPES["w"]),
        )


@pytest.mark.parametrize("chunk", [None, 128])
def test_oracle_of_top_k(chunk):
    grads = gradients(STEPS)
    found, state = run(mean_of(c.top_k(0.1, chunk=chunk)), grads)
    residual = {name: np.zeros((N, *shape)) for name, shape in SHAPES.items()}
    for t in range(STEPS):
        for name in ("e", "w"):
            total = grads[name][t] + residual[name]
            sent = np.stack([keep_top(x, 0.1, chunk) for x in total])
            residual[name] = total - sent
            np.testing.assert_allclose(found[name][t], sent.mean(0), atol=2e-6)
        np.testing.assert_allclose(found["b"][t], grads["b"][t].mean(0), atol=1e-6)
    for name in ("e", "w"):
        kept = state.residual.value[name]
        np.testing.assert_allclose(kept, residual[name], atol=1e-4)


@pytest.mark.daily("compressor1-4-mean", "compressor2-2-mean", "compressor4-1-norm")
@pytest.mark.parametrize(
    ("compressor", "bits", "scale"),
    [
        (c.quantized(8, block=64), 8, "mean"),
        (c.quantized(4, block=64), 4, "mean"),
        (c.quantized(2, block=64), 2, "mean"),
        (c.quantized(1, block=64), 1, "mean"),
        (c.sign("norm", block=64), 1, "norm"),
    ],
)
def test_oracle_of_quantized(compressor, bits, scale):
    grads = gradients(STEPS)
    found, _ = run(mean_of(compressor), grads)
    oracle = quantized_oracle(grads, bits, scale=scale)
    wrong = 0
    for t, (e, w) in enumerate(oracle):
        for name, expected in (("e", e), ("w", w)):
            # A number halfway between two codes may fall on either side in float32.
            off = np.abs(found[name][t] - expected) > 1e-4
            wrong += off.sum()
    assert wrong <= (20 if bits == 8 else 5)


def test_oracle_of_low_rank():
    shapes = {"b": (5,), "w": (40, 30)}
    grads = gradients(STEPS, shapes=shapes)
    tx = mean_of(c.low_rank(3, key=5))
    found, state = run(tx, grads)
    first, _ = start(tx, {k: jnp.zeros(s) for k, s in shapes.items()}, mesh_of())
    q = np.asarray(first.compressor.value[0, 1:], np.float64).reshape(30, 3)
    residual = np.zeros((N, 40, 30))
    for t in range(STEPS):
        matrices = grads["w"][t] + residual
        basis, _ = np.linalg.qr(matrices.mean(0) @ q)
        q = matrices.mean(0).T @ basis
        out = basis @ q.T
        residual = matrices - out
        # Float32 loses this part of the largest number, which grows with the residual.
        atol = 2e-5 * abs(matrices).max()
        np.testing.assert_allclose(found["w"][t], out, atol=atol)
    np.testing.assert_allclose(state.residual.value["w"], residual, atol=1e-3)


@pytest.mark.daily("8 bit", "top_k", "low_rank")
@pytest.mark.parametrize(
    "compressor",
    [
        c.top_k(0.05),
        c.top_k({0: 0.5, 7: 0.01}),
        c.random_k(0.1, key=1),
        c.quantized(8),
        c.sign(),
        c.low_rank(2),
    ],
    ids=["top_k", "staged", "random_k", "8 bit", "sign", "low_rank"],
)
def test_nothing_is_lost(compressor):
    grads = gradients(STEPS)
    found, state = run(mean_of(compressor), grads)
    for name in SHAPES:
        given = grads[name].astype(np.float64).mean(axis=1).sum(axis=0)
        sent = found[name].astype(np.float64).sum(axis=0)
        kept = state.residual.value[name]
        kept = 0 if kept is None else np.mean(np.asarray(kept, np.float64), axis=0)
        kept = kept + of_the_server(state, name)
        np.testing.assert_allclose(sent + kept, given, atol=2e-5)


def of_the_server(state, name):
    """What the second phase of a quantized mean has kept of a leaf."""
    node = state.compressor
    if not hasattr(node, "rows") or name == "b":
        return 0
    rows = np.asarray(node.value, np.float64).reshape(-1, 512)
    first = -(-1100 // 512)
    mine = rows[:first] if name == "e" else rows[first:]
    size = int(np.prod(SHAPES[name]))
    return mine.reshape(-1)[:size].reshape(SHAPES[name])


def test_at_its_limit_it_is_the_dense_mean():
    grads = gradients(3)
    for compressor in (c.top_k(1.0), c.top_k(1.0, chunk=64), c.random_k(1.0, key=0)):
        found, state = run(mean_of(compressor), grads)
        for name, given in grads.items():
            np.testing.assert_allclose(found[name], given.mean(axis=1), atol=1e-6)
        kept = jax.tree.leaves(state.residual)
        assert not any(np.any(np.asarray(x)) for x in kept)


def test_without_feedback_nothing_is_kept():
    found, state = run(mean_of(c.top_k(0.1), feedback=False), gradients(2))
    assert not jax.tree.leaves(state.residual)
    assert np.count_nonzero(found["e"][1]) <= N * 110


@pytest.mark.parametrize(
    "compressor", [c.top_k(0.1), c.low_rank(2)], ids=["top_k", "low_rank"]
)
def test_a_leaf_without_a_gradient_waits(compressor):
    tx, mesh = mean_of(compressor, min_size=100), mesh_of()
    params = {"v": jnp.zeros((40, 30)), "w": jnp.zeros((40, 30))}
    state, specs = start(tx, params, mesh)
    step = step_of(tx, mesh, specs)
    both = {name: gradients(1)["w"][0] for name in params}
    _, state = step(both, state, params)
    updates, after = step({**both, "v": None}, state, params)
    assert updates["v"] is None
    assert np.any(updates["w"])
    np.testing.assert_array_equal(after.residual.value["v"], state.residual.value["v"])
    again, _ = step(both, after, params)
    assert np.isfinite(again["v"]).all()
    assert np.any(again["v"])


@pytest.mark.slow
def test_the_mean_of_senders():
    grads = gradients(1)
    grads["e"][0] = 0
    grads["e"][0, 0, 500:503] = 8, 4, -2
    grads["e"][0, 1, 500:501] = 4
    # Three entries of each worker; where it has fewer, it sends zeros of its first.
    found, _ = run(mean_of(c.top_k(3 / 1100), average="senders"), grads)
    np.testing.assert_array_equal(found["e"][0][500:503], [6, 4, -2])
    found, _ = run(mean_of(c.top_k(3 / 1100)), grads)
    np.testing.assert_array_equal(found["e"][0][500:503], [3, 1, -0.5])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("check_vma", [True, False])
def test_every_kind_of_mesh(kind, check_vma):
    grads = gradients(3)
    expected, _ = run(mean_of(c.quantized(4)), grads)
    if kind == AxisType.Explicit and not check_vma:
        pytest.skip("an explicit mesh needs check_vma")
    found, state = run(
        mean_of(c.quantized(4)), grads, mesh=mesh_of(kind=kind), check_vma=check_vma
    )
    for name in SHAPES:
        np.testing.assert_array_equal(found[name], expected[name])
    assert state.residual.value["e"].sharding.spec[0] == "data"


@pytest.mark.daily("top_k", "low_rank")
@pytest.mark.parametrize(
    ("compressor", "bad"),
    [
        (c.top_k(0.1), np.nan),
        (c.quantized(8), np.inf),
        (c.sign(), np.nan),
        (c.low_rank(2), np.inf),
        (c.random_k(0.1, key=0), -np.inf),
    ],
    ids=["top_k", "quantized", "sign", "low_rank", "random_k"],
)
def test_a_number_that_is_not_finite_skips_the_step(compressor, bad):
    grads = gradients(3)
    where = "b" if bad == np.inf else "w"  # a dense leaf, or a compressed one
    grads[where][2, 1].reshape(-1)[3] = bad
    before, kept = run(mean_of(compressor), jax.tree.map(lambda g: g[:2], grads))
    found, state = run(mean_of(compressor), grads)
    for name in SHAPES:
        np.testing.assert_array_equal(found[name][2], 0)
        np.testing.assert_array_equal(found[name][:2], before[name])
    assert int(state.skipped) == 1
    assert int(state.count) == 3
    for old, new in zip(
        jax.tree.leaves((kept.residual, kept.compressor)),
        jax.tree.leaves((state.residual, state.compressor)),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)


def test_a_skipped_step_with_dense_leaves_only():
    grads = {"b": gradients(2)["b"]}
    grads["b"][1, 3, 0] = np.nan
    found, state = run(mean_of(c.top_k(0.1)), grads)
    assert np.isfinite(found["b"]).all()
    assert int(state.skipped) == 1


@pytest.mark.daily("bfloat16", "complex64")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.complex64])
def test_other_dtypes(dtype):
    grads = jax.tree.map(lambda g: jnp.asarray(g, dtype), gradients(3))
    if dtype == jnp.complex64:
        grads = jax.tree.map(lambda g: g * (1 + 2j), grads)
    found, state = run(mean_of(c.quantized(8)), grads)
    for name, given in grads.items():
        assert found[name].dtype == dtype
        expected = np.asarray(given).astype(np.complex128).mean(axis=1)
        assert np.abs(found[name].astype(np.complex128) - expected).max() < 0.1
    assert {x.dtype for x in jax.tree.leaves(state.residual)} == {jnp.dtype("f4")}


def test_a_second_axis_of_shards():
    """Each shard compresses its own part, and the state lies where they do."""
    mesh = mesh_of((N, 2), names=("data", "model"))
    grads = {"w": gradients(3)["w"]}
    tx = mean_of(c.quantized(8, block=64), min_size=0)
    place = NamedSharding(mesh, P("model"))
    params = {"w": jax.device_put(jnp.zeros((40, 30)), place)}
    state, specs = start(tx, params, mesh)
    assert state.residual.value["w"].sharding.spec == P("data", "model")

    def update(grads, state, params):
        return tx.update({"w": grads["w"][0]}, state, params)

    step = jax.jit(
        jax.shard_map(
            update,
            mesh=mesh,
            in_specs=({"w": P("data", "model")}, specs, {"w": P("model")}),
            out_specs=({"w": P("model")}, specs),
        )
    )
    halves = [
        run(tx, {"w": half}) for half in np.split(np.asarray(grads["w"]), 2, axis=2)
    ]
    for t in range(3):
        local = jax.device_put(grads["w"][t], NamedSharding(mesh, P("data", "model")))
        updates, state = step({"w": local}, state, params)
        expected = np.concatenate([found["w"][t] for found, _ in halves])
        np.testing.assert_array_equal(updates["w"], expected)


@pytest.mark.daily("top_k-True", "4 bit-False", "low_rank-True", "staged-False")
@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(
    "compressor",
    [
        c.top_k(0.1),
        c.random_k(0.1, key=0),
        c.quantized(4, block=64),
        c.low_rank(2),
        c.dct_top_k(8, chunk=16),
        c.top_k({0: 0.5, 1: 0.1}),
    ],
    ids=["top_k", "random_k", "4 bit", "low_rank", "dct_top_k", "staged"],
)
def test_sharded_leaves_beside_replicated_ones(compressor, check_vma):
    mesh = mesh_of((N, 2), names=("data", "model"))
    shapes = {"b": (5,), "same": (40, 30), "sharded": (80, 30)}
    grads = jax.tree.map(lambda g: g[0], gradients(1, shapes=shapes))
    specs = {"b": P(), "same": P(), "sharded": P("model")}
    tx = mean_of(compressor)
    params = {
        name: jax.device_put(jnp.zeros(shapes[name]), NamedSharding(mesh, spec))
        for name, spec in specs.items()
    }
    state, state_specs = start(tx, params, mesh)
    local = {name: P("data", *spec) for name, spec in specs.items()}
    step = jax.jit(
        jax.shard_map(
            lambda g, s, p: tx.update(jax.tree.map(lambda x: x[0], g), s, p),
            mesh=mesh,
            in_specs=(local, state_specs, specs),
            out_specs=(specs, state_specs),
            check_vma=check_vma,
        )
    )
    updates, state = step(grads, state, params)
    updates, state = step(grads, state, params)
    for name in shapes:
        first, *copies = [
            np.asarray(shard.data) for shard in updates[name].addressable_shards
        ]
        assert np.isfinite(first).all()
        if name != "sharded":
            for copy in copies:
                np.testing.assert_array_equal(copy, first)
    kept = np.asarray(state.residual.value["same"])
    assert kept.shape == (N, 40, 30)
    np.testing.assert_allclose(updates["b"], grads["b"].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("check_vma", [True, False])
def test_shards_skip_a_step_together(check_vma):
    mesh = mesh_of((N, 2), names=("data", "model"))
    place = NamedSharding(mesh, P("model"))
    params = {"w": jax.device_put(jnp.zeros((80, 30)), place)}
    tx = mean_of(c.quantized(8))
    state, specs = start(tx, params, mesh)
    step = jax.shard_map(
        lambda grads, state: tx.update({"w": grads[0]}, state),
        mesh=mesh,
        in_specs=(P("data", "model"), specs),
        out_specs=({"w": P("model")}, specs),
        check_vma=check_vma,
    )
    grads = gradients(1, shapes={"w": (80, 30)})["w"][0]
    grads[1, 70, 3] = np.nan  # in the second shard
    updates, state = jax.jit(step)(grads, state)
    np.testing.assert_array_equal(updates["w"], 0)
    assert not np.any(state.residual.value["w"])
    assert [int(x.data) for x in state.skipped.addressable_shards] == [1] * 8


@pytest.mark.slow
def test_dense_means_over_fast_links_come_first():
    mesh = mesh_of((N, 2), names=("data", "fast"))
    grads = gradients(2, workers=2 * N)
    tx = mean_of(c.quantized(8), fast_axis_name="fast")
    params = jax.tree.map(lambda g: jnp.zeros(g.shape[2:]), grads)
    state, specs = start(tx, params, mesh)
    axes = P(("data", "fast"))
    step = jax.jit(
        jax.shard_map(
            lambda g, s: tx.update(jax.tree.map(lambda x: x[0], g), s),
            mesh=mesh,
            in_specs=(axes, specs),
            out_specs=(P(), specs),
        )
    )
    means = jax.tree.map(lambda g: g.reshape(2, N, 2, *g.shape[2:]).mean(axis=2), grads)
    expected, _ = run(mean_of(c.quantized(8)), means)
    placed = NamedSharding(mesh, axes)
    for t in range(2):
        local = jax.tree.map(lambda g, t=t: jax.device_put(g[t], placed), grads)
        updates, state = step(local, state)
        for name in SHAPES:
            np.testing.assert_allclose(updates[name], expected[name][t], atol=1e-6)
