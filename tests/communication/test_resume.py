"""States in checkpoints: after a kill, and for another number of workers."""

import itertools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import optax_extras as ox
from optax_extras._core.placement import Divided, is_placed

from communication import local
from communication.local import parameters
from communication.methods import LOCAL, method
from communication.scripts import popen
from communication.training import PARAMS, abstract, last_checkpoint, train
from communication.workers import SHAPES, begin, first_of, gradients, mesh_of

pytestmark = pytest.mark.slow

NAMES = ["8 bit", "4 bit", "low_rank", "dgc", *LOCAL]


def after(count, steps):
    """Parameters, state and loss after so many steps."""
    return next(itertools.islice(steps, count - 1, None))


def killed(folder, steps):
    """A process that goes on in the folder, and dies after so many steps."""
    process = popen("training.py", folder, steps, *NAMES, devices=8)
    try:
        return process.wait(timeout=300) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_killed_and_resumed_to_the_bit(tmp_path):
    assert killed(tmp_path, steps=9)  # as it begins to save the third time
    first = last_checkpoint(tmp_path)
    assert first in (6, 9)
    assert killed(tmp_path, steps=16)
    last = last_checkpoint(tmp_path)
    assert last > first
    mesh = mesh_of()
    txs = {name: method(name) for name in NAMES}
    with ocp.StandardCheckpointer() as checkpointer:
        like = {name: abstract(tx, mesh) for name, tx in txs.items()}
        found = checkpointer.restore(tmp_path / str(last), like)
    for name, tx in txs.items():
        whole = after(last, train(tx, mesh, begin(tx, PARAMS, mesh)))
        assert_same(found[name], whole[:2])


def stage_of(carry):
    """The state of what communicates, alone or in front of a chain."""
    params, state = carry
    return state if isinstance(params, ox.PerWorker) else state[0]


def means_of(carry):
    """What all workers have on average, and a bound of the error of its float32s."""
    stage = stage_of(carry)
    names = "residual", "velocity", "inner"
    fields = [getattr(stage, name, None) for name in names]
    if isinstance(carry[0], ox.PerWorker):
        fields.append(carry[0])
    leaves = [x for x in jax.tree.leaves(fields) if jnp.issubdtype(x.dtype, "f")]
    each = [np.asarray(leaf, np.float64) for leaf in leaves]
    return [(x.mean(axis=0), np.abs(x).mean(axis=0) * 2.0**-24) for x in each]


def assert_kept(carry, resized, exact):
    """The mean over workers stays, and counts stay those of a step."""
    pairs = zip(means_of(carry), means_of(resized), strict=True)
    for (before, bound), (mean, _) in pairs:
        # Several float32 numbers have a mean that may need one bit more.
        assert (np.abs(mean - before) <= 4 * bound * (not exact)).all()
    shapes = [
        [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in counts_of(one)]
        for one in (carry, resized)
    ]
    assert shapes[0] == shapes[1]
    for old, new in zip(counts_of(carry), counts_of(resized), strict=True):
        np.testing.assert_array_equal(np.unique(new, axis=0), np.unique(old, axis=0))


def counts_of(carry):
    """Integers of each worker."""
    nodes = jax.tree.leaves(carry, is_leaf=is_placed)
    leaves = jax.tree.leaves([x for x in nodes if isinstance(x, ox.PerWorker)])
    return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.integer)]


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["4 bit", "dgc", "low_rank", "diloco"])
def test_from_eight_workers_to_four_and_back(tmp_path, name):
    """After 5 and 10 steps, which is in the middle of a round of four."""
    kept, losses = None, []
    for number, workers in enumerate((8, 4, 8)):
        tx, mesh = method(name, workers), mesh_of(workers)
        carry = begin(tx, PARAMS, mesh)
        if number:
            resized = ox.resize_workers(kept, workers)
            shapes = jax.tree.map(jnp.shape, (carry, resized))
            assert shapes[0] == shapes[1]
            assert_kept(kept, resized, exact=workers == 8)
            assert_same(server_rows(resized), server_rows(kept))
            carry = resized
        *carry, value = after(5, train(tx, mesh, carry, first=5 * number))
        losses.append(value)
        # Through a file, and from there as it is on all devices.
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / str(number), tuple(carry))
        with ocp.StandardCheckpointer() as checkpointer:
            loaded = checkpointer.restore(tmp_path / str(number), abstract(tx, mesh))
        assert_same(loaded, tuple(carry))
        kept = loaded
    assert losses[0] > losses[1] > losses[2]


def server_rows(carry):
    """The rows that the servers of a quantized mean keep, without padding."""
    nodes = jax.tree.leaves(stage_of(carry), is_leaf=is_placed)
    found = []
    for node in (x for x in nodes if isinstance(x, Divided)):
        rows = np.asarray(node.value).reshape(-1, *node.value.shape[2:])
        assert not rows[int(node.rows) :].any()
        found.append(rows[: int(node.rows)])
    return found


@pytest.mark.parametrize("name", ["4 bit", "dgc", "diloco"])
def test_numbers_of_workers_that_do_not_divide_each_other(name):
    rng = np.random.default_rng(0)

    def drawn(x):
        is_one = jnp.issubdtype(x.dtype, "f") and x.size > 16  # no count, no weight
        return jnp.asarray(rng.normal(size=x.shape), "f4") if is_one else x

    carry = jax.tree.map(drawn, begin(method(name), PARAMS, mesh_of()))
    for workers in (3, 8, 5):
        resized = ox.resize_workers(carry, workers)
        fresh = first_of(method(name, workers), PARAMS, "data", workers)
        assert jax.tree.map(jnp.shape, resized) == jax.tree.map(jnp.shape, fresh)
        assert means_of(resized)
        assert_kept(carry, resized, exact=False)
        rest = jax.tree.leaves(without_workers(resized))
        assert_same(rest, jax.tree.leaves(without_workers(carry)))
        carry = resized


def without_workers(carry):
    """The parts that are the same for every number of workers."""
    return jax.tree.map(
        lambda node: () if is_placed(node) else node, carry, is_leaf=is_placed
    )


def learned(carry):
    """The weighted mean of what workers have learned since they agreed."""
    params, state = carry
    weight = np.asarray(state.weight.value, np.float64)
    found = {}
    for name, reference in ox.outer_params(state).items():
        (number,) = (i for i, x in enumerate(state.reference) if x[name] is not None)
        difference = np.float64(reference) - np.float64(params.value[name])
        found[name] = np.average(difference, axis=0, weights=weight[:, number])
    return found


def test_workers_of_unequal_weights_are_resized_to_the_weighted_mean():
    """In the middle of the rounds of both fragments; one worker takes no part."""
    tx = ox.local_updates(
        optax.sgd(0.1), optax.sgd(1.0), 8, axis_name="data", workers=4, fragments=2
    )
    weights = np.tile(np.float32([1, 0, 2, 5]), (6, 1))
    weights[5] = [7, 0, 1, 0]
    _, carry = local.run(tx, parameters(SHAPES), gradients(6), weights=weights)
    assert np.ptp(np.asarray(carry[1].weight.value), axis=1).any()
    for workers in (2, 3, 8, 1):
        resized = ox.resize_workers(carry, workers)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
            learned(resized),
            learned(carry),
        )
        for x in jax.tree.leaves(resized):
            assert np.isfinite(x).all()
        carry = resized


def test_a_worker_that_is_lost_does_not_spoil_the_others():
    params = ox.PerWorker(jnp.array([1.0, jnp.nan, 2.0, 3.0]))
    assert ox.resize_workers(params, 2).value.tolist()[1] == 2.5
    found = ox.resize_workers(params, 8).value
    np.testing.assert_array_equal(found, jnp.repeat(params.value, 2))


def test_typed_keys_are_resized():
    keys = ox.PerWorker(jax.random.split(jax.random.key(0, impl="rbg"), 4))
    found = ox.resize_workers(keys, 2).value
    assert (found == keys.value[::2]).all()
