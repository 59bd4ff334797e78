"""States in checkpoints: after a kill, and for another number of workers."""

import itertools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import optax_extras as ox
from optax_extras._core.placement import Divided, is_placed

from communication.methods import method
from communication.scripts import popen
from communication.training import PARAMS, abstract, last_checkpoint, train
from communication.workers import mesh_of, start

pytestmark = pytest.mark.slow

NAMES = ["8 bit", "4 bit", "low_rank", "dgc"]


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
        state, _ = start(tx, PARAMS, mesh)
        whole = after(last, train(tx, mesh, state))
        assert_same(found[name], whole[:2])


def means_of(state):
    """What all workers of a stage keep, and a bound of the error of its float32s."""
    fields = [getattr(state, name, None) for name in ("residual", "velocity")]
    each = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(fields)]
    return [(x.mean(axis=0), np.abs(x).mean(axis=0) * 2.0**-24) for x in each]


@pytest.mark.parametrize("name", ["4 bit", "dgc", "low_rank"])
def test_from_eight_workers_to_four_and_back(tmp_path, name):
    kept, params, losses = None, PARAMS, []
    for number, workers in enumerate((8, 4, 8)):
        tx, mesh = method(name, workers), mesh_of(workers)
        state, _ = start(tx, PARAMS, mesh)
        if number:
            resized = ox.resize_workers(kept, workers)
            shapes = jax.tree.map(jnp.shape, (state, resized))
            assert shapes[0] == shapes[1]
            # Two float32 numbers have a mean that may need one bit more.
            pairs = zip(means_of(resized[0]), means_of(kept[0]), strict=True)
            for (mean, bound), (before, _) in pairs:
                assert (np.abs(mean - before) <= bound * (workers == 4)).all()
            assert_same(server_rows(resized[0]), server_rows(kept[0]))
            state = resized
        steps = train(tx, mesh, state, params, first=5 * number)
        params, state, value = after(5, steps)
        losses.append(value)
        # Through a file, and from there as it is on all devices.
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / str(number), (params, state))
        with ocp.StandardCheckpointer() as checkpointer:
            loaded = checkpointer.restore(tmp_path / str(number), abstract(tx, mesh))
        assert_same(loaded, (params, state))
        params, kept = loaded
    assert losses[0] > losses[1] > losses[2]


def server_rows(state):
    """The rows that the servers of a quantized mean keep, without padding."""
    node = getattr(state, "compressor", None)
    if not isinstance(node, Divided):
        return None
    rows = np.asarray(node.value).reshape(-1, *node.value.shape[2:])
    assert not rows[int(node.rows) :].any()
    return rows[: int(node.rows)]


@pytest.mark.parametrize("name", ["4 bit", "dgc"])
def test_numbers_of_workers_that_do_not_divide_each_other(name):
    first, _ = start(method(name), PARAMS, mesh_of())
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), "f4") if x.ndim else x,
        first,
    )
    for workers in (3, 8, 5):
        resized = ox.resize_workers(state, workers)
        fresh = method(name, workers).init(PARAMS)
        assert jax.tree.map(jnp.shape, resized) == jax.tree.map(jnp.shape, fresh)
        found, expected = means_of(resized[0]), means_of(state[0])
        assert found
        for (mean, _), (before, bound) in zip(found, expected, strict=True):
            assert (np.abs(mean - before) <= 4 * bound).all()
        rest = jax.tree.leaves(without_workers(resized))
        assert_same(rest, jax.tree.leaves(without_workers(state)))
        state = resized


def without_workers(state):
    """The parts that are the same for every number of workers."""
    return jax.tree.map(
        lambda node: () if is_placed(node) else node, state, is_leaf=is_placed
    )
