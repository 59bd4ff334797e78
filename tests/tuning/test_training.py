"""The digits task and the training loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_extras.tuning import Task, digits, train


def test_digits_are_standardised_and_split():
    task = digits(None)
    x, y = task.batch(jax.random.key(0), jnp.int32(0))
    assert x.shape == (1347, 64)
    assert y.shape == (1347,)
    np.testing.assert_allclose(np.mean(x, axis=0), 0, atol=1e-5)
    varying = np.std(x, axis=0) > 0
    np.testing.assert_allclose(np.std(x, axis=0)[varying], 1, rtol=1e-4)


def test_an_epoch_shows_every_image_once():
    task = digits(449)  # a third of the training set
    key = jax.random.key(0)

    def epoch(first):
        return np.concatenate([task.batch(key, first + i)[0] for i in range(3)])

    whole = np.unique(digits(None).batch(key, 0)[0], axis=0)
    np.testing.assert_array_equal(np.unique(epoch(0), axis=0), whole)
    np.testing.assert_array_equal(np.unique(epoch(3), axis=0), whole)
    assert not np.array_equal(epoch(0), epoch(3))


@pytest.mark.parametrize("size", [0, -1, 1348])
def test_bad_batch_sizes(size):
    with pytest.raises(ValueError, match=rf"must be in \[1, 1347\], got {size}"):
        digits(size)


def quadratic():
    return Task(
        "quadratic",
        init=lambda key: jax.random.normal(key, (3,)),
        batch=lambda key, step: jax.random.normal(jax.random.fold_in(key, step), (3,)),
        loss=lambda params, batch: jnp.sum((params - 0.1 * batch) ** 2),
        evaluate=lambda params: {"loss": jnp.sum(params**2), "first": params[0]},
    )


def test_training_is_the_plain_loop():
    task, tx = quadratic(), optax.adam(0.1)
    init_key, batch_key = jax.random.split(jax.random.key(3))
    params = task.init(init_key)
    state, firsts = tx.init(params), [params[0]]
    for step in range(10):
        grads = jax.grad(task.loss)(params, task.batch(batch_key, step))
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
    assert result.steps_per_second > 0
    assert result.compile_seconds > 0


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
