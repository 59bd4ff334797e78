"""The cart-pole task: its physics, its gradient, its parts, and that it is learnt."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_extras.tasks import _cart_pole, cart_pole
from optax_extras.tuning import sweep

KEY = jax.random.key(0)


def batch_of(task, step=0, seed=0):
    plan = task.batches.plan(jax.random.key(seed), jnp.int32(step), 1)
    return task.batches.take(jax.tree.map(lambda x: x[0], plan))


def log_odds(params, state):
    p = {k: np.float64(v) for k, v in params.items()}
    return np.tanh(state @ p["input"] + p["bias"]) @ p["output"]


def move(state, right):
    """A step of 0.02 s, from the forces on cart and pole as a linear system."""
    _, v, angle, turning = state
    pole, cart, length, gravity = 0.1, 1.0, 0.5, 9.8
    force = 10.0 if right else -10.0
    # Lagrange's equations of a uniform rod of length 2 * 0.5 on a cart.
    coupling = pole * length * np.cos(angle)
    masses = [[cart + pole, coupling], [coupling, 4 / 3 * pole * length**2]]
    forces = [
        force + pole * length * turning**2 * np.sin(angle),
        pole * gravity * length * np.sin(angle),
    ]
    acceleration, angular = np.linalg.solve(masses, forces)
    return np.array(state) + 0.02 * np.array([v, acceleration, turning, angular])


def falls(state):
    return abs(state[0]) > 2.4 or abs(state[2]) > np.radians(12)


def test_the_loss_is_what_the_mean_return_of_the_mini_batch_lacks():
    task = cart_pole(episodes=6, horizon=60)
    params, batch = task.init(KEY), batch_of(task)
    returns = []
    for start, uniform in zip(batch.start, np.float64(batch.uniform).T, strict=True):
        state, steps = np.float64(start), 0
        while steps < 60 and not falls(state):
            chance = 1 / (1 + np.exp(-log_odds(params, state)))
            state = move(state, uniform[steps] < chance)
            steps += 1
        returns.append(steps)
    assert len(set(returns)) > 3
    loss = jax.jit(task.loss)(params, batch, KEY)
    assert float(loss) == pytest.approx(60 - np.mean(returns))


def test_the_gradient_is_that_of_the_expected_return():
    """The sum over all sequences of actions, beside the mean of sampled episodes."""
    horizon, episodes = 9, 40_000
    task = cart_pole(episodes, horizon, hidden=3)
    params, batch = task.init(KEY), batch_of(task)
    start = np.float32([0.3, -0.5, 0.1, 0.6])
    batch = batch._replace(start=jnp.tile(start[None], (episodes, 1)))
    visited, actions, returns = [], [], []
    for sequence in product([False, True], repeat=horizon):
        states, state = [], np.float64(start)
        for right in sequence:
            if falls(state):
                break
            states.append(state)
            state = move(state, right)
        returns.append(len(states))
        visited.append(states + [state] * (horizon - len(states)))
        actions.append(sequence)
    assert min(returns) < horizon == max(returns)
    visited, returns = jnp.float32(np.array(visited)), np.float32(returns)
    signs = np.where(actions, np.float32(1), np.float32(-1))

    def expected(params):
        hidden = jnp.tanh(visited @ params["input"] + params["bias"][None, None])
        chances = jax.nn.log_sigmoid(signs * (hidden @ params["output"]))
        # Actions after the end are in the sum too, where they add up to 1.
        return jnp.sum(jnp.exp(jnp.sum(chances, axis=1)) * returns)

    loss, gradient = jax.jit(jax.value_and_grad(task.loss))(params, batch, KEY)
    mean, exact = jax.jit(jax.value_and_grad(expected))(params)
    assert horizon - float(loss) == pytest.approx(float(mean), rel=0.01)
    found, wanted = (jax.flatten_util.ravel_pytree(x)[0] for x in (gradient, exact))
    error = np.linalg.norm(found + wanted) / np.linalg.norm(wanted)
    assert error < 0.05
    assert np.linalg.norm(wanted) > 0.1


@pytest.mark.slow
def test_a_good_rate_learns_and_a_rate_of_0_does_not():
    rates = {"learning_rate": [0.0, 0.01]}
    task = cart_pole(horizon=100)
    # A seed that is given twice is the same run.
    result = sweep(task, optax.adam, rates, steps=60, seeds=[0, 1, 0], eval_every=60)
    still, learnt = result.metrics["test_return"]
    np.testing.assert_array_equal(learnt[0], learnt[2])
    assert learnt[0, -1] != learnt[1, -1]
    assert (still == still[:, :1]).all()
    assert (learnt[:, -1] > 2 * learnt[:, 0]).all()
    assert (result.losses[1, :, -1] < 0.9 * result.initial_losses[1]).all()
    assert result.best() == {"learning_rate": pytest.approx(0.01)}
    assert not result.diverged().any()


def test_a_key_and_the_step_decide_the_mini_batch():
    task = cart_pole(horizon=20)
    same, other = batch_of(task), batch_of(task, seed=1)
    for again, name in ((batch_of(task), "same"), (batch_of(task, step=1), "step")):
        for x, y, z in zip(same, again, other, strict=True):
            assert bool((x == y).all()) == (name == "same")
            assert not (x == z).any()


def test_each_part_has_episodes_of_its_own(monkeypatch):
    task = cart_pole(horizon=30)
    params = task.init(KEY)
    before = jax.jit(task.evaluate)(params)
    assert before["validation_return"] != before["test_return"]
    monkeypatch.setitem(_cart_pole._PARTS, "validation", 7)
    after = jax.jit(lambda params: task.evaluate(params))(params)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"validation_return"}
    assert task.goal.metric == "validation_return"
    assert task.goal.reported == "test_return"


def test_shapes_and_bounds():
    task = cart_pole(episodes=3, horizon=7, hidden=5)
    params, batch = task.init(KEY), batch_of(task)
    shapes = {name: x.shape for name, x in params.items()}
    assert shapes == {"input": (4, 5), "bias": (5,), "output": (5,)}
    assert (batch.start.shape, batch.uniform.shape) == ((3, 4), (7, 3))
    many = batch_of(cart_pole(episodes=5000, horizon=1)).start
    np.testing.assert_allclose(jnp.max(many, axis=0), [1, 1, 0.1, 1], rtol=0.01)
    np.testing.assert_allclose(jnp.min(many, axis=0), [-1, -1, -0.1, -1], rtol=0.01)


@pytest.mark.nightly
def test_what_happens_after_the_end_does_not_count():
    """Pushes at random, after which a pole that fell swings up again."""
    long, short = (cart_pole(12, horizon) for horizon in (500, 80))
    params = long.init(KEY) | {"output": jnp.zeros(32)}
    batch = batch_of(long)
    first = batch._replace(uniform=batch.uniform[:80])
    value, gradient = jax.jit(jax.value_and_grad(long.loss))(params, batch, KEY)
    same, wanted = jax.jit(jax.value_and_grad(short.loss))(params, first, KEY)
    assert value - 500 == same - 80
    for x, y in zip(*map(jax.tree.leaves, (gradient, wanted)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_a_number_that_is_no_integer_is_refused():
    with pytest.raises(TypeError, match="`hidden` must be an integer"):
        cart_pole(hidden=1.5)
