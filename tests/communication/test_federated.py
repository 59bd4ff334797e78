"""Workers that count by their weights, take no part for a while, or have gone wrong."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import optax_extras as ox
from optax_extras import compressors as c

from communication.local import parameters, run as run_local
from communication.test_local_updates import AXIS, close, oracle
from communication.test_mean import keep_top, mean_of
from communication.workers import SHAPES, N, gradients, mesh_of, start

pytestmark = pytest.mark.nightly

STEPS = 12
INNER = optax.adamw(0.1, weight_decay=0.01)
# Of four workers: unequal ones, of which one is away at first, and one for long.
WEIGHTS = np.tile(np.float32([1, 2, 5, 0.5]), (STEPS, 1))
WEIGHTS[:3, 0] = 0
WEIGHTS[3:12, 2] = 0
MEANS = {
    "dense": mean_of(c.Dense()),
    "top_k": mean_of(c.top_k(0.1)),
    "random_k": mean_of(c.random_k(0.1, key=0)),
    "4 bit": mean_of(c.quantized(4)),
    "low_rank": mean_of(c.low_rank(2)),
    "dct_top_k": mean_of(c.dct_top_k(8, chunk=16)),
}


@cache
def compiled(tx):
    """A step from gradients and weights of all workers, and the first state."""
    mesh = mesh_of()
    params = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
    state, specs = start(tx, params, mesh)

    def update(grads, weight, state):
        own = jax.tree.map(lambda g: g[0], grads)
        return tx.update(own, state, params, weight=weight)

    axis = P("data")
    step = jax.jit(
        jax.shard_map(
            update, mesh=mesh, in_specs=(axis, axis, specs), out_specs=(P(), specs)
        )
    )
    return step, state


def run(tx, grads, weights):
    """Updates of all steps, and the states behind them."""
    step, state = compiled(tx)
    found, states = [], [state]
    for t in range(len(weights)):
        given = jax.tree.map(lambda g, t=t: g[t], grads)
        updates, state = step(given, weights[t], state)
        found.append(jax.tree.map(np.asarray, updates))
        states.append(state)
    return jax.tree.map(lambda *u: np.stack(u), *found), states


def weighted_mean(values, weights):
    return np.tensordot(weights / weights.sum(), np.float64(values), 1)


@pytest.mark.parametrize("name", MEANS)
def test_nothing_is_lost_of_weighted_gradients(name):
    """Σ W u = Σ w g − Σ e: what came out, times the sum of the weights."""
    grads = gradients(STEPS)
    found, states = run(MEANS[name], grads, WEIGHTS)
    totals = WEIGHTS.sum(axis=1)
    for leaf in SHAPES:
        given = np.einsum("tw,tw...->...", np.float64(WEIGHTS), grads[leaf])
        out = np.einsum("t,t...->...", totals, np.float64(found[leaf]))
        kept = states[-1].residual.value[leaf]
        rest = 0 if kept is None else np.float64(kept).sum(axis=0)
        if name == "4 bit":  # the server's part is in units of the mean
            continue
        np.testing.assert_allclose(out + rest, given, atol=2e-4)


@pytest.mark.parametrize("average", ["all", "senders"])
def test_weighted_mean_of_the_largest(average):
    grads = gradients(STEPS)
    tx = ox.compressed_mean(c.top_k(0.1), "data", workers=N, average=average)
    found, _ = run(tx, grads, WEIGHTS)
    kept = {k: np.zeros((N, *shape)) for k, shape in SHAPES.items()}
    for t, w in enumerate(np.float64(WEIGHTS)):
        expected = weighted_mean(grads["b"][t], w)
        np.testing.assert_allclose(found["b"][t], expected, atol=1e-5)
        for name in ("e", "w"):
            total, senders = np.zeros(SHAPES[name]), np.zeros(SHAPES[name])
            for i in np.flatnonzero(w):
                p = kept[name][i] + w[i] * grads[name][t, i]
                sent = keep_top(p, 0.1)
                kept[name][i] = p - sent
                total += sent
                senders += w[i] * (sent != 0)
            by = w.sum() if average == "all" else np.where(senders, senders, 1)
            off = np.abs(found[name][t] - total / by) > 1e-5
            assert off.sum() <= 2, (t, name)


def test_weighted_mean_of_quantized():
    grads = gradients(STEPS)
    tx = mean_of(c.quantized(8, block=64))
    found, _ = run(tx, grads, WEIGHTS)
    for name in SHAPES:
        expected = [
            weighted_mean(g, w) for g, w in zip(grads[name], WEIGHTS, strict=True)
        ]
        np.testing.assert_allclose(found[name], np.stack(expected), atol=0.1)
        np.testing.assert_allclose(
            found[name].mean(axis=0), np.mean(expected, axis=0), atol=0.01
        )


@pytest.mark.parametrize("weight", [0, -1, 3e38])
def test_nobody_takes_part_where_all_is_compressed(weight):
    """Or the sum of the weights overflows. One message alone has to tell so."""
    params = {"w": jnp.zeros((40, 30))}
    for compressor in (c.top_k(0.1), c.quantized(4), c.low_rank(2)):
        tx = mean_of(compressor)
        state, specs = start(tx, params, mesh_of())

        def update(state, tx=tx):
            grads = jax.lax.pcast(jnp.ones((40, 30)), "data", to="varying")
            return tx.update({"w": grads}, state, weight=float(weight))

        mapped = jax.shard_map(
            update, mesh=mesh_of(), in_specs=(specs,), out_specs=(P(), specs)
        )
        updates, after = jax.jit(mapped)(state)
        assert not updates["w"].any()
        assert int(after.skipped) == 1


@pytest.mark.parametrize("name", MEANS)
def test_a_worker_that_is_away_waits_and_does_not_count(name):
    """Whatever its gradients are; the others' mean is that of three workers."""
    grads = gradients(3)
    weights = np.ones((3, N), np.float32)
    weights[1, 2] = 0
    broken = jax.tree.map(np.copy, grads)
    for leaf in SHAPES:
        broken[leaf][1, 2] = np.nan
    tx = MEANS[name]
    (found, states), (same, _) = (run(tx, g, weights) for g in (grads, broken))
    for leaf in SHAPES:
        np.testing.assert_array_equal(found[leaf], same[leaf])
        kept = [s.residual.value[leaf] for s in states]
        if kept[0] is not None:
            np.testing.assert_array_equal(kept[2][2], kept[1][2])
        if leaf == "b":
            three = np.delete(grads[leaf][1], 2, axis=0).mean(axis=0)
            np.testing.assert_allclose(found[leaf][1], three, atol=1e-6)
    assert int(states[-1].skipped) == 0


@pytest.mark.parametrize("name", ["top_k", "4 bit", "low_rank"])
def test_equal_weights_change_nothing(name):
    grads = gradients(4)
    tx = MEANS[name]
    found, _ = run(tx, grads, np.ones((4, N), np.float32))
    plain, _ = run(tx, grads, [None] * 4)
    for leaf in SHAPES:
        np.testing.assert_allclose(found[leaf], plain[leaf], atol=1e-6)


@pytest.mark.parametrize("weight", [0, -1, np.nan])
def test_steps_without_weights(weight):
    """Nobody takes part, or one weight is no weight."""
    grads = gradients(1)
    weights = np.full((1, N), weight if weight == 0 else 1, np.float32)
    weights[0, 1] = weight
    for name in ("dense", "top_k", "4 bit", "low_rank"):
        tx = MEANS[name]
        found, (before, after) = run(tx, grads, weights)
        assert all((u == 0).all() for u in found.values())
        assert int(after.skipped) == 1
        kept = jax.tree.map(np.asarray, (before.residual, after.residual))
        jax.tree.map(np.testing.assert_array_equal, *kept)


def test_a_weight_is_one_number():
    state, specs = start(mean_of(c.top_k(0.1)), {"w": jnp.zeros(5)}, mesh_of())

    def update(state):
        grads = {"w": jax.lax.pcast(jnp.zeros(5), "data", to="varying")}
        return mean_of(c.top_k(0.1)).update(grads, state, weight=jnp.ones(2))

    mapped = jax.shard_map(
        update, mesh=mesh_of(), in_specs=(specs,), out_specs=(P(), specs)
    )
    with pytest.raises(ValueError, match=r"`weight` must be one real .* shape \(2,\)"):
        jax.eval_shape(mapped, state)


@pytest.mark.parametrize("make", ["dgc", "demo"])
def test_velocities_of_an_absent_worker_wait(make):
    grads, weights = gradients(2), np.ones((2, N), np.float32)
    weights[1, 3] = 0
    if make == "dgc":
        tx = ox.deep_gradient_compression(0.1, density=0.1, clip=1.0, **AXIS)
    else:
        tx = ox.demo(0.01, k=8, chunk=16, **AXIS)
    _, states = run(tx, grads, weights)
    before, after = (s[0] if make == "dgc" else s for s in states[1:])
    fields = ("velocity", "residual") if make == "dgc" else ("residual",)
    for field in fields:
        old, new = (getattr(one, field).value["w"] for one in (before, after))
        np.testing.assert_array_equal(new[3], old[3])
        assert (new[0] != old[0]).any()


@pytest.mark.parametrize("absent", [0, -1, np.nan, np.inf])
def test_weighted_rounds(absent):
    """One worker is absent for the first round, and one for three rounds."""
    grads, params = gradients(STEPS), parameters(SHAPES)
    tx = ox.diloco(INNER, every=3, **AXIS)
    weights = np.where(WEIGHTS == 0, np.float32(absent), WEIGHTS)
    found, (_, state) = run_local(tx, params, grads, weights=weights)
    ends = dict.fromkeys(SHAPES, 0)
    close(found, oracle(params, grads, 3, ends, WEIGHTS))
    assert state.inner.value[0].count.tolist() == [9, 12, 3, 12]


@pytest.mark.parametrize("compressor", [c.top_k(0.1), c.quantized(4)])
def test_the_residual_of_an_absent_worker_waits(compressor):
    grads, params = gradients(6), parameters(SHAPES)
    tx = ox.local_updates(
        optax.sgd(0.1), optax.sgd(1.0), 3, compressor=compressor, **AXIS
    )
    weights = np.ones((6, N), np.float32)
    weights[3:, 1] = 0
    early = jax.tree.map(lambda g: g[:3], grads)
    _, first = run_local(tx, params, early, weights=weights[:3])
    late = jax.tree.map(lambda g: g[3:], grads)
    _, second = run_local(tx, params, late, weights=weights[3:], carry=first)
    for name in ("e", "w"):
        before, after = (one[1].residual[0].value[name] for one in (first, second))
        np.testing.assert_array_equal(after[1], before[1])
        assert (after[0] != before[0]).any()


def test_a_step_that_is_not_finite_is_the_workers_own_loss():
    grads, params = gradients(STEPS), parameters(SHAPES)
    grads["w"][4, 1, 0, 0] = np.nan
    grads["b"][7, 2] = np.inf
    tx = ox.diloco(INNER, every=3, **AXIS)
    found, (_, state) = run_local(tx, params, grads)
    close(found, oracle(params, grads, 3, dict.fromkeys(SHAPES, 0)))
    assert state.skipped.value.tolist() == [0, 1, 1, 0]


def test_a_worker_whose_parameters_are_lost_comes_back():
    grads, params = gradients(6), parameters(SHAPES)
    tx = ox.fedavg(optax.sgd(0.1), every=3, **AXIS)
    _, (theta, state) = run_local(tx, params, jax.tree.map(lambda g: g[:2], grads))
    lost = {**theta.value, "w": theta.value["w"].at[1].set(np.nan)}
    carry = ox.PerWorker(lost), state
    rest = jax.tree.map(lambda g: g[2:3], grads)
    found, _ = run_local(tx, params, rest, carry=carry)
    for name, x in params.items():
        moves = 0.1 * np.float64(grads[name][:3]).sum(axis=0)
        expected = x - np.delete(moves, 1, axis=0).mean(axis=0)
        for i in range(N):
            np.testing.assert_allclose(found[name][0, i], expected, atol=1e-5)


def test_a_round_in_which_nobody_takes_part():
    grads, params = gradients(4), parameters(SHAPES)
    tx = ox.diloco(INNER, every=2, **AXIS)
    weights = np.ones((4, N), np.float32)
    weights[:2] = 0
    found, (_, state) = run_local(tx, params, grads, weights=weights)
    for name, x in params.items():
        np.testing.assert_array_equal(found[name][1], np.stack([x] * N))
    close(found, oracle(params, grads, 2, dict.fromkeys(SHAPES, 0), weights))
    assert state.adopted.tolist() == [True]
