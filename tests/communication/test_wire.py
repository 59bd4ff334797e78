"""Bytes: what is counted in a traced step is what the compiled one moves."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

import optax_extras as ox
from optax_extras import compressors as c

from communication.workers import N, mesh_of, start, step_of

PARAMS = {"b": jnp.zeros(5), "w": jnp.zeros((400, 300))}
SIZE = 400 * 300
GATHERS = {
    "top_k": c.top_k(0.001),
    "chunks": c.top_k(0.001, chunk=4096),
    "two bits": c.top_k(64 / 4096, chunk=4096, bits=2),
    "waves": c.dct_top_k(),
    "random_k": c.random_k(0.01, key=0),
}
PHASES = {f"{bits} bit": c.quantized(bits) for bits in (8, 4, 2, 1)}
ALL = {**GATHERS, **PHASES, "low rank": c.low_rank(2)}


def mean_of(compressor):
    return ox.compressed_mean(compressor, "data", workers=N)


def counted(tx):
    return ox.wire_bytes(tx, PARAMS, axis_name="data", workers=N)


def collectives(tx):
    """Those of a compiled step."""
    mesh = mesh_of()
    state, specs = start(tx, PARAMS, mesh)
    grads = jax.tree.map(lambda p: jnp.zeros((N, *p.shape)), PARAMS)
    program = step_of(tx, mesh, specs).lower(grads, state, PARAMS).compile()
    return ox.collective_bytes(program)


@pytest.mark.daily("two bits", "top_k", "4 bit", "low rank")
@pytest.mark.parametrize("name", ALL)
def test_what_is_counted_is_what_moves(name):
    tx = mean_of(ALL[name])
    sent = received = 0
    for one in collectives(tx):
        assert one.group_size == N
        others = (N - 1) / N
        if one.kind == "all-gather":
            sent += one.operand_bytes
            received += one.result_bytes - one.operand_bytes
        elif one.kind == "all-to-all":
            sent += int(one.operand_bytes * others)
            received += int(one.operand_bytes * others)
        else:
            sent += int(2 * one.operand_bytes * others)
            received += int(2 * one.operand_bytes * others)
        if one.dtype == "f32":  # the small leaves, or factors
            assert one.operand_bytes <= 4 * 2 * 700 + 4 * 6
    found = counted(tx)
    # XLA may merge small sums, each of which is rounded down.
    assert sent == pytest.approx(found.sent, abs=8)
    assert received == pytest.approx(found.received, abs=8)


@pytest.mark.parametrize(
    ("name", "most"), [("top_k", 0.0065), ("chunks", 0.0065), ("random_k", 0.0201)]
)
def test_bytes_of_a_gather(name, most):
    found = counted(mean_of(GATHERS[name]))
    small = 2 * 4 * 6 * (N - 1) // N
    assert found.sent - small <= most * SIZE + 1
    assert found.received - small == (N - 1) * (found.sent - small)


@pytest.mark.parametrize(
    ("name", "most"), [("8 bit", 2.1), ("4 bit", 1.1), ("2 bit", 0.55), ("1 bit", 0.3)]
)
def test_bytes_of_both_phases(name, most):
    found = counted(mean_of(PHASES[name]))
    assert found.sent + found.received <= 2 * most * SIZE
    assert found.received <= most * SIZE


def test_bytes_of_low_rank_factors():
    found = counted(mean_of(c.low_rank(2)))
    factors = 4 * 2 * (400 + 300)
    assert found.sent == pytest.approx(2 * (N - 1) / N * factors, rel=0.02)


def test_a_gather_that_moves_more_than_a_dense_mean_is_told():
    assert counted(mean_of(c.top_k(0.01))).note == ""
    tx = ox.compressed_mean(c.top_k(0.5), "data", workers=64)
    found = ox.wire_bytes(tx, PARAMS, axis_name="data", workers=64)
    assert "receives more than in a dense mean" in found.note
    assert found.ratio < 1


def test_the_stage_that_moves_most_counts():
    staged = counted(mean_of(c.top_k({0: 0.25, 5: 0.01})))
    assert staged == counted(mean_of(c.top_k(0.25)))


def test_what_follows_is_no_communication():
    tx = mean_of(c.top_k(0.01))
    assert counted(optax.chain(tx, optax.adam(0.1))) == counted(tx)
    nothing = ox.wire_bytes(optax.adam(0.1), PARAMS, axis_name="data", workers=N)
    assert (nothing.sent, nothing.received) == (0, 0)


def test_replicas_stay_the_same_to_the_bit():
    tx = optax.chain(mean_of(c.quantized(4, stochastic=True, key=0)), optax.adam(0.1))
    mesh = mesh_of()
    params = {"w": jnp.zeros((40, 30))}
    state, specs = start(tx, params, mesh)

    def run(params, state):
        def step(carry, number):
            params, state = carry
            mine = jax.lax.axis_index("data") + number
            grads = jax.tree.map(lambda p: jnp.sin(mine + p), params)
            updates, state = tx.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        carry, _ = jax.lax.scan(step, (params, state), jnp.arange(2000.0))
        return carry[0]["w"][jnp.newaxis]

    copies = jax.jit(
        jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(P(), specs),
            out_specs=P("data"),
            check_vma=False,
        )
    )(params, state)
    assert (copies == copies[:1]).all()
    assert jnp.abs(copies).max() > 0.1


def test_a_known_step_decides_on_the_density():
    densities = {0: 0.5, 3: 0.1, 5: 0.01}

    def sent(density, step=None):
        tx = ox.compressed_mean(c.top_k(density), "data", workers=N)
        params = {"w": jnp.zeros(2000)}
        return ox.wire_bytes(tx, params, axis_name="data", workers=N, step=step).sent

    found = [sent(densities, step) for step in range(6)]
    assert found == [sent(0.5)] * 3 + [sent(0.1)] * 2 + [sent(0.01)]
    assert sent(densities, range(1, 6)) == sum(found[1:])
    assert sent(densities) == found[0]


def test_operands_beyond_the_fifth_are_read():
    """XLA numbers every fifth operand in a comment."""
    grads = {"w": jnp.zeros((8, 64, 256))}
    tx = ox.compressed_mean(c.quantized(4), "data", workers=8)
    mesh = mesh_of(8)
    state, specs = start(tx, {"w": jnp.zeros((64, 256))}, mesh)
    compiled = step_of(tx, mesh, specs).lower(grads, state, None)
    (moved,) = (
        one
        for one in ox.collective_bytes(compiled.compile())
        if one.kind == "all-to-all"
    )
    assert moved.operand_bytes == moved.result_bytes
