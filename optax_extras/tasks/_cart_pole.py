"""Policy gradient for a pole that a cart balances, all in JAX."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_extras._core import checks
from optax_extras.tasks._batches import batches_of_step
from optax_extras.tasks._names import named
from optax_extras.tasks._task import Goal, Task

Params = dict[str, jax.Array]

# Metres, kilograms and seconds; Barto, Sutton and Anderson's, without their friction.
_GRAVITY, _FORCE, _CART, _POLE, _HALF_LENGTH, _TIME = 9.8, 10.0, 1.0, 0.1, 0.5, 0.02
_TRACK, _ANGLE = 2.4, math.radians(12)
# Largest position, velocity, angle and angular velocity at the start.
_START = (1.0, 1.0, 0.1, 1.0)
# Seeds of the episodes of each part, and their number.
_PARTS = {"validation": 1983, "test": 1992}
_EPISODES = 64


class Episodes(NamedTuple):
    """What is random in E episodes of at most T steps."""

    start: jax.Array  # position, velocity, angle, angular velocity; (E, 4)
    uniform: jax.Array  # decide on actions, in [0, 1); (T, E)


class Rollout(NamedTuple):
    """What happened in the episodes, at each step before its action."""

    states: jax.Array  # (T, E, 4)
    pushes: jax.Array  # whether the action was to the right; bool, (T, E)
    upright: jax.Array  # whether the episode goes on; bool, (T, E)


@named()
def cart_pole(episodes: int = 4, horizon: int = 200, hidden: int = 32) -> Task:
    r"""Reinforcement learning: a policy gradient for balancing a pole on a cart.

    At each step of 0.02 s the policy, a network with one hidden layer, pushes the cart
    to the left or to the right. An episode starts up to 1 m from the middle at up to
    1 m/s, with a pole that leans by up to 0.1 radians and turns by up to 1 radian per
    second. It ends when the pole leans by 12° or the cart is 2.4 m from the middle, and
    at the latest after ``horizon`` steps; its return is the number of its steps. The
    task is non-stationary by its nature: the policy decides which states it sees, and
    returns, and with them the gradients, grow as it learns.

    With the return to go :math:`G_t`, the number of steps from step t to the end of the
    episode, and the mean :math:`b_t` of that of the other episodes of the mini-batch,
    the gradient of the loss is that of REINFORCE with a baseline,

    .. math::

        -\frac{1}{E} \sum_{e=1}^E \sum_t (G_{e,t} - b_{e,t}) \nabla \log
        \pi(a_{e,t} | s_{e,t})

    which is an unbiased estimate of that of minus the expected return. It comes from a
    surrogate, in which states, actions and advantages are constants
    (`jax.lax.stop_gradient`). The value of the loss is ``horizon`` minus the mean
    return of the mini-batch, so that losses tell what was learnt, where the surrogate
    is about 0 throughout. It is a number of steps, whose own derivative is 0.

    Args:
      episodes: E, episodes per mini-batch, at least 2.
      horizon: most steps of an episode, at least 1.
      hidden: number of hidden units, with tanh, at least 1.

    Returns:
      A task with the metrics ``validation_return`` and ``test_return``, the mean
      returns of the policy, which draws its actions, in 64 fixed episodes each. Its
      goal is to maximise the former, and it reports the latter.

    Raises:
      TypeError: a number is no integer.
      ValueError: a number is below its least.

    References:
      Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist
      Reinforcement Learning"; Barto, Sutton, Anderson 1983, "Neuronlike Adaptive
      Elements That Can Solve Difficult Learning Control Problems"
    """
    episodes = checks.positive_integer("episodes", episodes)
    horizon = checks.positive_integer("horizon", horizon)
    hidden = checks.positive_integer("hidden", hidden)
    if episodes < 2:
        raise ValueError(f"`episodes` must be >= 2, got {episodes}")

    def init(key: jax.Array) -> Params:
        inside, out = jax.random.split(key)
        return {
            "input": jax.random.normal(inside, (4, hidden)) / 2,
            "bias": jnp.zeros(hidden),
            "output": jax.random.normal(out, (hidden,)) / hidden**0.5,
        }

    def loss(params: Params, batch: Episodes, key: jax.Array) -> jax.Array:
        del key
        found = _roll_out(jax.lax.stop_gradient(params), batch)
        alive = found.upright.astype(batch.start.dtype)
        to_go = jnp.cumsum(alive[::-1], axis=0)[::-1]
        others = (jnp.sum(to_go, axis=1, keepdims=True) - to_go) / (episodes - 1)
        logits = _logits(params, found.states)
        chosen = jax.nn.log_sigmoid(jnp.where(found.pushes, logits, -logits))
        surrogate = -jnp.sum(alive * (to_go - others) * chosen) / episodes
        missing = horizon - jnp.mean(to_go[0])
        return surrogate - jax.lax.stop_gradient(surrogate) + missing

    def draw(key: jax.Array, number: int) -> Episodes:
        start, uniform = jax.random.split(key)
        share = jax.random.uniform(start, (number, 4), minval=-1)
        return Episodes(
            share * jnp.array([_START]), jax.random.uniform(uniform, (horizon, number))
        )

    def evaluate(params: Params) -> dict[str, jax.Array]:
        metrics = {}
        for name, seed in _PARTS.items():
            part = draw(jax.random.key(seed), _EPISODES)
            upright = _roll_out(params, part).upright
            metrics[f"{name}_return"] = jnp.mean(
                jnp.sum(upright, axis=0, dtype=part.start.dtype)
            )
        return metrics

    batches = batches_of_step(
        lambda key, step: draw(jax.random.fold_in(key, step), episodes)
    )
    goal = Goal("validation_return", "max", reported="test_return")
    return Task("cart-pole", init, batches, loss, evaluate, goal)


def _logits(params: Params, states: jax.Array) -> jax.Array:
    """Log-odds of a push to the right, (...,), from states, (..., 4)."""
    bias = jnp.expand_dims(params["bias"], tuple(range(states.ndim - 1)))
    logits: jax.Array = jnp.tanh(states @ params["input"] + bias) @ params["output"]
    return logits


def _roll_out(params: Params, episodes: Episodes) -> Rollout:
    def step(carry: tuple[jax.Array, jax.Array], uniform: jax.Array) -> Any:
        state, upright = carry
        push = uniform < jax.nn.sigmoid(_logits(params, state))
        moved = _moved(state, push)
        inside = (jnp.abs(moved[:, 0]) <= _TRACK) & (jnp.abs(moved[:, 2]) <= _ANGLE)
        return (moved, upright & inside), Rollout(state, push, upright)

    upright = jnp.ones(len(episodes.start), bool)
    found: Rollout
    _, found = jax.lax.scan(step, (episodes.start, upright), episodes.uniform)
    return found


def _moved(state: jax.Array, push: jax.Array) -> jax.Array:
    """States after one Euler step of the equations of motion, (E, 4)."""
    _, velocity, angle, turning = jnp.moveaxis(state, 1, 0)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    total = _CART + _POLE
    force = jnp.where(push, _FORCE, -_FORCE).astype(state.dtype)
    pushed = (force + _POLE * _HALF_LENGTH * turning**2 * sine) / total
    leverage = _HALF_LENGTH * (4 / 3 - _POLE * cosine**2 / total)
    angular = (_GRAVITY * sine - pushed * cosine) / leverage
    linear = pushed - _POLE * _HALF_LENGTH * angular * cosine / total
    change = jnp.stack([velocity, linear, turning, angular], axis=1)
    return state + _TIME * change
