"""Bytes of steps whose number decides on what they send."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType

import optax_extras as ox

from communication.workers import N, mesh_of, start, step_of

PARAMS = {"b": jnp.zeros(5), "w": jnp.zeros((40, 30))}
SIZE = 40 * 30


def of_steps(tx, step=None):
    return ox.wire_bytes(tx, PARAMS, axis_name="data", workers=N, step=step)


class Counted(NamedTuple):
    count: jax.Array


def sending(branch, *branches):
    """A stage whose branch follows from the number of the step, and the gradients."""

    def update(updates, state, params=None):
        index = branch(state.count, updates)
        updates = lax.switch(jnp.asarray(index, jnp.int32), branches, updates)
        return updates, Counted(optax.safe_increment(state.count))

    return optax.GradientTransformation(
        lambda params: Counted(jnp.zeros((), jnp.int32)), update
    )


def mean(grads):
    return lax.pmean(grads, "data")


def same(grads):
    return grads


def due(count):
    return (count + 1) % 3 == 0


@jax.custom_jvp
def with_a_derivative(count):
    return jnp.where(lax.rem(count, 3) == 2, 1.0, 0.0)


with_a_derivative.defjvps(None)
TABLE = np.array([0, 0, 1])
EVERY_THIRD = {
    "remainder": lambda count, g: due(count),
    "where": lambda count, g: jnp.where(lax.rem(count, 3) == 2, 1, 0),
    "float": lambda count, g: jnp.mod((count + 1) / 3, 1.0) == 0,
    "table": lambda count, g: jnp.asarray(TABLE)[count % 3],
    "search": lambda count, g: jnp.searchsorted(jnp.arange(3), count % 3) == 2,
    "loop": lambda count, g: lax.fori_loop(0, count, lambda i, n: (n + 1) % 3, 0) == 2,
    "branch": lambda count, g: lax.cond(due(count), lambda: 1, lambda: 0),
    "jit": lambda count, g: jax.jit(lambda g, n: (g["w"] + n, due(n)))(g, count)[1],
    "checkpoint": lambda count, g: jax.checkpoint(lambda g, n: due(n))(g, count),
    "custom_jvp": lambda count, g: with_a_derivative(count),
}


@pytest.mark.parametrize("name", EVERY_THIRD)
def test_the_number_of_the_step_decides_on_a_branch(name):
    tx = sending(EVERY_THIRD[name], same, mean)
    dense = 2 * 4 * (SIZE + 5) * (N - 1) // N
    sent = [of_steps(tx, step).sent for step in range(6)]
    assert sent == [0, 0, dense, 0, 0, dense]
    assert of_steps(tx).sent == dense


def test_a_round_is_the_sum_of_its_steps():
    def turn(count, g):
        return jnp.select([(count + 1) % 4 == 2, (count + 1) % 4 == 0], [1, 2])

    def part(name):
        return lambda grads: {**grads, name: mean(grads[name])}

    tx = sending(turn, same, part("b"), part("w"))
    small, large = (2 * 4 * n * (N - 1) // N for n in (5, SIZE))
    assert [of_steps(tx, step).sent for step in range(4)] == [0, small, 0, large]
    found = of_steps(tx, range(2, 10))
    assert found.sent == found.received == 2 * (small + large)
    assert found.dense == 8 * of_steps(tx, 0).dense == 8 * of_steps(tx).dense
    assert found.ratio == found.dense / found.sent
    assert of_steps(tx, [3, 3]).sent == 2 * large
    assert of_steps(optax.chain(tx, optax.adam(0.1)), [1]) == of_steps(tx, 1)


def test_what_is_not_known_counts_as_the_most():
    def by_gradient(count, g):
        return g["b"][0] > count

    def by_worker(count, g):
        return count + lax.axis_index("data") > 2

    def by_all(count, g):
        return lax.pmax(count, "data") > 2

    for branch in (by_gradient, by_worker, by_all):
        tx = sending(branch, same, mean)
        assert of_steps(tx, 0) == of_steps(tx) != of_steps(tx, [0, 1])
    inner = sending(by_gradient, same, mean)
    both = sending(
        lambda count, g: due(count), same, lambda g: inner.update(g, Counted(0))[0]
    )
    assert of_steps(both, range(3)).sent == of_steps(both).sent > 0


def test_many_steps_are_traced_once():
    traced = []
    tx = sending(lambda count, g: traced.append(count) or due(count), same, mean)
    assert of_steps(tx, range(30_000)).sent == 10_000 * of_steps(tx, 2).sent
    assert len(traced) == 2


def test_a_step_is_counted_under_a_mesh_and_inside_of_a_program():
    tx = sending(lambda count, g: due(count), same, mean)
    expected = of_steps(tx, range(3))
    with jax.set_mesh(mesh_of(kind=AxisType.Explicit)):
        assert of_steps(tx, range(3)) == expected
    assert jax.jit(lambda: of_steps(tx, range(3)).sent)() == expected.sent
    with jax.enable_x64(True):
        assert of_steps(tx, range(3)) == expected


def test_a_branch_may_follow_from_a_thousand_equations():
    def far(count, g):
        for _ in range(1000):
            count = count + 3
        return due(count)

    tx = sending(far, same, mean)
    assert of_steps(tx, range(6)).sent == 2 * of_steps(tx).sent > 0


def test_notes_are_those_of_all_steps():
    def gather(grads):
        return jax.tree.map(lambda g: lax.all_gather(g, "data")[0], grads)

    tx = sending(lambda count, g: due(count), same, gather)
    assert "receives more" in of_steps(tx, 2).note
    assert of_steps(tx, range(3)).note == ""


def test_the_compiled_step_sends_in_its_branch_alone():
    tx = sending(lambda count, g: due(count), same, mean)
    mesh = mesh_of()
    state, specs = start(tx, PARAMS, mesh)
    grads = jax.tree.map(lambda p: jnp.zeros((N, *p.shape)), PARAMS)
    step = step_of(tx, mesh, specs, check_vma=False)
    text = step.lower(grads, state, PARAMS).compile().as_text()
    branches = [
        ox.collective_bytes(part) for part in text.split("\n\n") if "ENTRY" not in part
    ]
    (entry,) = (part for part in text.split("\n\n") if "ENTRY" in part)
    assert "conditional(" in entry
    assert ox.collective_bytes(entry) == []
    (found,) = (part for part in branches if part)
    moved = sum(int(2 * one.operand_bytes * (N - 1) / N) for one in found)
    assert moved == of_steps(tx, 2).sent


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (-1, ValueError, "`step` must be >= 0, got -1"),
        ([3, -1], ValueError, "`step` must be >= 0, got -1"),
        (range(0), ValueError, r"must have at least one number, got range\(0, 0\)"),
        (1.0, TypeError, "`step` must be an int, got 1.0"),
        ("1", TypeError, "`step` must be an int, got '1'"),
    ],
)
def test_steps_that_are_refused(step, error, message):
    with pytest.raises(error, match=message):
        of_steps(optax.sgd(0.1), step)
