"""The digits task and the training loop."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_extras.tuning import (
    Task,
    batches_of_step,
    digits,
    minibatches,
    train,
)


def batches(task, seed, start, length):
    """The mini-batches of some steps, stacked."""
    plan = task.batches.plan(jax.random.key(seed), jnp.int32(start), length)
    return jax.vmap(task.batches.take)(plan)


def test_digits_are_standardised_and_split():
    x, y = batches(digits(None), 0, 5, 1)
    assert x.shape == (1, 1347, 64)
    assert y.shape == (1, 1347)
    np.testing.assert_allclose(np.mean(x[0], axis=0), 0, atol=1e-5)
    varying = np.std(x[0], axis=0) > 0
    np.testing.assert_allclose(np.std(x[0], axis=0)[varying], 1, rtol=1e-4)


def test_an_epoch_shows_every_image_once():
    task = digits(449)  # a third of the training set
    whole = np.unique(batches(digits(None), 0, 0, 1)[0][0], axis=0)
    epochs = [batches(task, 0, start, 3)[0].reshape(-1, 64) for start in (0, 3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.unique(epoch, axis=0), whole)
    assert not np.array_equal(*epochs)


@pytest.mark.parametrize("size", [1, 128, 449, 1347])
def test_the_order_does_not_depend_on_how_it_is_asked_for(size):
    task = digits(size)
    key = jax.random.key(1)
    whole = task.batches.plan(key, jnp.int32(0), 40)
    assert whole.shape == (40, size)
    for start, length in ((0, 1), (7, 5), (9, 31), (39, 1)):
        part = task.batches.plan(key, jnp.int32(start), length)
        np.testing.assert_array_equal(part, whole[start : start + length])


@pytest.mark.parametrize("size", [0, -1, 1348])
def test_bad_batch_sizes(size):
    with pytest.raises(ValueError, match=rf"must be in \[1, 1347\], got {size}"):
        digits(size)


def test_wrong_labels_are_a_fraction_of_the_training_set():
    clean, wrong = digits(None), digits(None, wrong_labels=0.3)
    (x, y), (same, changed) = (
        (b[0][0], b[1][0]) for b in (batches(t, 0, 0, 1) for t in (clean, wrong))
    )
    np.testing.assert_array_equal(x, same)
    assert np.sum(y != changed) == round(0.3 * 1347)
    assert set(np.unique(changed)) == set(range(10))
    with pytest.raises(ValueError, match=r"`wrong_labels` must be in \[0, 1\], got 2"):
        digits(wrong_labels=2)


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


def quadratic():
    return Task(
        "quadratic",
        init=lambda key: jax.random.normal(key, (3,)),
        batches=batches_of_step(
            lambda key, step: jax.random.normal(jax.random.fold_in(key, step), (3,))
        ),
        loss=lambda params, batch, key: jnp.sum(
            (params - 0.1 * batch - 0.1 * jax.random.normal(key, (3,))) ** 2
        ),
        evaluate=lambda params: {"loss": jnp.sum(params**2), "first": params[0]},
    )


def test_training_is_the_plain_loop():
    task, tx = quadratic(), optax.adam(0.1)
    init_key, batch_key, loss_key, _ = jax.random.split(jax.random.key(3), 4)
    params = task.init(init_key)
    state, firsts = tx.init(params), [params[0]]
    for step in range(10):
        batch = jax.random.normal(jax.random.fold_in(batch_key, step), (3,))
        key = jax.random.fold_in(loss_key, step)
        grads = jax.grad(task.loss)(params, batch, key)
        updates, state = tx.update(grads, state)
        params = optax.apply_updates(params, updates)
        if step % 4 == 3 or step == 9:
            firsts.append(params[0])
    seen = []
    result = train(task, tx, steps=10, seed=3, eval_every=4, on_progress=seen.append)
    np.testing.assert_array_equal(result.steps, [0, 4, 8, 10])
    np.testing.assert_allclose(result.metrics["first"], firsts, rtol=1e-5)
    assert seen == [4, 8, 10]
    assert result.state_bytes_per_parameter == 8 + 4 / 3


def test_speed_counts_the_loop_and_not_the_metrics(monkeypatch):
    """A clock that is slow everywhere but in the loop: 0.5 s a call of 4 steps."""
    ticks = iter([0, 7, *(t for i in range(3) for t in (100 * i, 100 * i + 0.5))])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    result = train(quadratic(), optax.sgd(0.1), steps=12, eval_every=4)
    assert result.compile_seconds == 7
    assert result.steps_per_second == 8


def test_optimizers_meet_the_same_parameters_and_batches():
    one = train(quadratic(), optax.sgd(0.0), steps=2, seed=1)
    other = train(quadratic(), optax.adam(0.0), steps=2, seed=1)
    np.testing.assert_array_equal(one.metrics["first"], other.metrics["first"])
    third = train(quadratic(), optax.sgd(0.0), steps=2, seed=2)
    assert one.metrics["first"][0] != third.metrics["first"][0]


@pytest.mark.parametrize("name", ["steps", "eval_every"])
def test_bad_lengths(name):
    with pytest.raises(ValueError, match=f"`{name}` must be >= 1, got 0"):
        train(quadratic(), optax.sgd(0.1), **{"steps": 1, name: 0})
