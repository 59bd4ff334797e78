"""What a compiled step of workers that train alone sends, keeps and copies."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_extras as ox
from optax_extras.compressors import quantized

from communication.local import start, step_of
from communication.workers import N, mesh_of

pytestmark = pytest.mark.slow

AXIS = {"axis_name": "data", "workers": N}
SMALL = {"b": jnp.zeros(5), "w": jnp.zeros((40, 30))}
LAYERS = {f"layer {i}": {"b": jnp.zeros(8), "w": jnp.zeros((64, 8))} for i in range(8)}
SIZE = 1 << 20


def compiled(tx, params):
    """A step that takes the buffers of parameters and state, and these."""
    carry, specs = start(tx, params, mesh_of())
    grads = jax.tree.map(lambda p: jnp.zeros((N, *p.shape), p.dtype), params)
    step = step_of(tx, mesh_of(), specs, donate=True)
    return step.lower(carry, grads, jnp.ones(N)).compile(), carry


def sent_in_branches(program):
    """Bytes that a worker sends in each branch of the entry, which sends none itself.

    Another computation with a collective fails: it runs in every step.
    """
    parts = program.as_text().split("\n\n")
    (entry,) = (part for part in parts if "ENTRY" in part)
    assert ox.collective_bytes(entry) == []
    branches = ",".join(
        re.findall(
            r"(?:branch_computations=\{|(?:true|false)_computation=)([^}]*)", entry
        )
    )
    found = {}
    for part in parts:
        if part != entry and (collectives := ox.collective_bytes(part)):
            name = re.match(r"\s*%?([\w.-]+)", part)[1]
            found[name] = sum(map(sent, collectives))
    assert set(found) <= set(re.findall(r"%([\w.-]+)", branches))
    return sorted(found.values())


def sent(one):
    """Bytes that a worker sends in a collective."""
    if one.kind == "all-gather":
        return one.operand_bytes
    passes = 2 if one.kind == "all-reduce" else 1
    return int(passes * one.operand_bytes * (N - 1) / N)


def counted(tx, params, step):
    return ox.wire_bytes(tx, params, step=step, **AXIS)


@pytest.mark.parametrize(
    "tx",
    [
        ox.diloco(optax.adamw(0.1), every=3, **AXIS),
        ox.diloco(optax.sgd(0.1), every=3, compressor=quantized(4), **AXIS),
        ox.sparse_loco(optax.sgd(0.1), every=3, chunk=512, **AXIS),
    ],
    ids=["dense", "4 bit", "sparse_loco"],
)
def test_a_step_sends_in_its_branch_alone(tx):
    (moved,) = sent_in_branches(compiled(tx, SMALL)[0])
    steps = [counted(tx, SMALL, step).sent for step in range(6)]
    assert steps == [0, 0, steps[2], 0, 0, steps[2]]
    # XLA may merge small sums, each of which is rounded down.
    assert moved == pytest.approx(steps[2], abs=8)
    assert moved > 100


def test_fragments_are_sent_in_turn():
    whole, parts = (
        ox.diloco(optax.sgd(0.1), every=8, fragments=fragments, **AXIS)
        for fragments in (1, 4)
    )
    found = [counted(parts, LAYERS, step).sent for step in range(8)]
    assert [bool(x) for x in found] == [False, True] * 4
    report = 12  # of two float32s, weight and whether all is finite, of each message
    (once,) = set(found) - {0}
    most = counted(whole, LAYERS, 7).sent
    assert most - report == 4 * (once - report)
    assert counted(whole, LAYERS, range(8)).sent == most
    assert counted(parts, LAYERS, range(8)).sent == 4 * once
    assert sent_in_branches(compiled(parts, LAYERS)[0]) == [once] * 4


@pytest.mark.parametrize(
    ("method", "options", "every", "least", "most"),
    [
        (ox.diloco, {"inner": optax.adamw(0.1)}, 100, 7.8, 8),
        (
            ox.diloco,
            {"inner": optax.adamw(0.1), "compressor": quantized(4)},
            100,
            1,
            1.1,
        ),
        (ox.sparse_loco, {"inner": optax.adamw(0.1)}, 30, 0.02, 0.03),
        (ox.demo, {"learning_rate": 0.1}, 1, 0.02, 0.03),
    ],
    ids=["dense", "4 bit", "sparse_loco", "demo"],
)
def test_bytes_of_a_round_and_parameter(method, options, every, least, most):
    """Those of a step are an H-th of it; a gather's are received from every worker."""
    group = {"axis_name": "data", "workers": 64}
    params = jax.ShapeDtypeStruct((SIZE // 1024, 1024), jnp.float32)
    found = ox.wire_bytes(
        method(**options, **group), params, step=range(2 * every), **group
    )
    moved = found.sent if most < 1 else max(found.sent, found.received)
    assert least <= moved / SIZE / 2 <= most


def test_one_copy_of_the_parameters_is_kept_beside_them():
    params = {"w": jnp.zeros(SIZE)}
    program, carry = compiled(ox.diloco(optax.adam(0.1), **AXIS), params)
    memory = program.memory_analysis()
    # Parameters, their reference, the outer momentum, and two moments of Adam.
    assert 20 * SIZE <= on_a_device(carry) <= 20 * SIZE + 64
    never_read = carry[1].adopted.nbytes
    assert memory.alias_size_in_bytes == on_a_device(carry) - never_read
    # The update, and the difference and its mean in a step with an exchange.
    assert memory.temp_size_in_bytes <= 12.1 * SIZE
    (entry,) = (part for part in program.as_text().split("\n\n") if "ENTRY" in part)
    assert not re.findall(rf"= f32\[(?:1,)?{SIZE}\]\S* copy\(.*", entry)


def on_a_device(carry):
    """Bytes of what one of the devices has."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(carry))


def test_fragments_take_less_memory():
    params = {str(i): jnp.zeros(SIZE // 4) for i in range(4)}
    whole, parts = (
        compiled(ox.diloco(optax.adam(0.1), fragments=fragments, **AXIS), params)[0]
        for fragments in (1, 4)
    )
    whole, parts = (
        one.memory_analysis().temp_size_in_bytes / SIZE for one in (whole, parts)
    )
    assert parts <= whole - 4


def test_many_steps_are_traced_once():
    tx, traced = ox.diloco(optax.adamw(0.1), every=3, fragments=2, **AXIS), []

    def update(*args, **kwargs):
        traced.append(args)
        return tx.update(*args, **kwargs)

    counting = optax.GradientTransformationExtraArgs(tx.init, update)
    carry, specs = start(tx, SMALL, mesh_of())
    step = step_of(counting, mesh_of(), specs, donate=True)
    grads = jax.tree.map(lambda p: jnp.ones((N, *p.shape)), SMALL)
    for _ in range(7):
        carry = step(carry, grads, jnp.ones(N))
    assert len(traced) == 1
    assert int(carry[1].count) == 7
