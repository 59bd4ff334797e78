"""Mini-batches, and the data of the digits."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_extras.tasks import _real_data, digits, federated_minibatches, minibatches


def batches(task, seed, start, length):
    """The mini-batches of some steps, stacked."""
    plan = task.batches.plan(jax.random.key(seed), jnp.int32(start), length)
    return jax.vmap(task.batches.take)(plan)


def test_without_a_size_a_batch_is_the_training_part():
    x, y = batches(digits(None), 0, 5, 1)
    known, labels = _real_data.load("digits", classes=True)["train"]
    np.testing.assert_array_equal(x, known[None])
    np.testing.assert_array_equal(y, labels[None])


def test_an_epoch_shows_every_image_once():
    task = digits(505)  # half of the training part
    whole = np.unique(batches(digits(None), 0, 0, 1)[0][0], axis=0)
    epochs = [batches(task, 0, start, 2)[0].reshape(-1, 64) for start in (0, 2)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.unique(epoch, axis=0), whole)
    assert not np.array_equal(*epochs)


@pytest.mark.daily("7", "clients")
@pytest.mark.parametrize(
    ("source", "size"),
    [
        *((minibatches(np.arange(30), size), size) for size in (1, 7, 10, 30)),
        (federated_minibatches(np.arange(30), 6, [range(3), range(3, 30)]), 6),
    ],
    ids=[1, 7, 10, 30, "clients"],
)
def test_the_order_does_not_depend_on_how_it_is_asked_for(source, size):
    plan = jax.jit(source.plan, static_argnums=2)
    key = jax.random.key(1)
    whole = plan(key, jnp.int32(0), 40)
    assert whole.shape == (40, size)
    for start, length in ((0, 1), (7, 31), (39, 1)):
        part = plan(key, jnp.int32(start), length)
        np.testing.assert_array_equal(part, whole[start : start + length])


@pytest.mark.parametrize("size", [0, -1, 1011])
def test_bad_batch_sizes(size):
    with pytest.raises(ValueError, match=rf"must be in \[1, 1010\], got {size}"):
        digits(size)


def test_softmax_regression_has_no_hidden_layer():
    params = digits(hidden=None).init(jax.random.key(0))
    assert [p.shape for p in jax.tree.leaves(params)] == [(10,), (64, 10)]


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"one number of examples, got \[2, 3\]"):
        minibatches((np.zeros(2), np.zeros(3)), 1)


def test_scikit_learn_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'optax-extras\[cli\]'"):
        digits()
