"""Adaptive restarts against their rules in float64, and against what they restart.

Runs are scans, so that many problems are one program.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec as P

import optax_extras as ox

from specs import spec
from wrapped import OF_ADAM

WITH_VALUE = {
    "static": {"rule": "value"},
    # It falls and rises; the suite's own would need temporaries to compute it.
    "extra_args": lambda step: {"value": jnp.cos(jnp.float32(step.step))},
}
MOMENTUM = {
    "around": ox.momentum_sgd,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "schedules": ("learning_rate", "momentum"),
    "supports": {"complex", "complex_as_real", "descent"},
    "buffers": 1,
}
SPECS = [
    spec(ox.adaptive_restart, **MOMENTUM),
    spec(
        ox.adaptive_restart,
        "value",
        **MOMENTUM,
        **WITH_VALUE,
        changes={"formula", "state"},
    ),
    spec(
        ox.adaptive_restart,
        "adam",
        around=optax.adam,
        learning_rate=0.1,
        schedules=("learning_rate",),
        supports={"descent"},
        buffers=2,
        changes={"formula", "state"},
        expected_failures=OF_ADAM,
    ),
]

RULES = ("gradient", "value")
HESSIAN = np.diag([0.02, 0.3, 1.0])
START = np.array([1.0, -2.0, 3.0])
STEPS = 60


def nesterov_momentum(t):
    return jnp.maximum(t - 1, 0) / (t + 2).astype(float)


def momentum_oracle(rule, gamma, nesterov=False, rate=0.9, steps=STEPS):
    """Momentum with restarts in float64: the path, and the steps that restart."""
    x, v, last, path, restarts = START, np.zeros(3), np.inf, [], []
    for t in range(steps):
        g, loss = HESSIAN @ x, x @ HESSIAN @ x / 2
        ahead = gamma * v - rate * g
        step = gamma * ahead - rate * g if nesterov else ahead
        if (loss > last) if rule == "value" else (g @ step > 0):
            restarts.append(t)
            ahead = -rate * g
            step = gamma * ahead - rate * g if nesterov else ahead
        x, v, last = x + step, ahead, loss
        path.append(x)
    return np.stack(path), restarts


def lookahead_oracle(rule, rate=0.9):
    """Nesterov's method with gradients at y, whose momentum rises from a restart on."""
    x, v, k, last, path, restarts = START, np.zeros(3), 0, np.inf, [], []
    for t in range(STEPS):
        mu = max(k - 1, 0) / (k + 2)
        g, loss = HESSIAN @ (x + mu * v), x @ HESSIAN @ x / 2
        step = mu * v - rate * g
        if (loss > last) if rule == "value" else (g @ step > 0):
            restarts.append(t)
            step, k = -rate * g, 0
        x, v, k, last = x + step, step, k + 1, loss
        path.append(x)
    return np.stack(path), restarts


def descend(tx, curvature=HESSIAN, start=START, steps=STEPS, point=None):
    """Parameters and states after every step on a quadratic."""
    params, curvature = jnp.asarray(start), jnp.asarray(curvature)
    if curvature.ndim == 1:
        curvature = jnp.diag(curvature)

    def step(carry, _):
        params, state = carry
        value = params @ curvature @ params / 2
        at = params if point is None else point(state, params)
        updates, state = tx.update(curvature @ at, state, params, value=value)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    return jax.lax.scan(step, (params, tx.init(params)), length=steps)[1]


def restarted_at(states):
    return np.flatnonzero(np.diff(states.restarts, prepend=0)).tolist()


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_oracle(rule, nesterov, x64):
    inner = ox.momentum_sgd(0.9, 0.99, nesterov=nesterov)
    path, states = descend(ox.adaptive_restart(inner, rule=rule))
    expected, restarts = momentum_oracle(rule, 0.99, nesterov)
    assert restarted_at(states) == restarts
    assert len(restarts) > 5
    np.testing.assert_allclose(path, expected, rtol=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_oracle_of_rising_momentum_at_the_look_ahead_point(rule, x64):
    """The momentum of the paper, (k − 1) / (k + 2), starts again with k."""
    tx = ox.adaptive_restart(ox.nesterov_lookahead(0.9, nesterov_momentum), rule=rule)
    path, states = descend(tx, point=ox.nesterov_lookahead_params)
    expected, restarts = lookahead_oracle(rule)
    assert restarted_at(states) == restarts
    assert len(restarts) >= 2
    np.testing.assert_allclose(path, expected, rtol=1e-9)


@pytest.mark.daily(
    "corrected-gradient",
    "aggmo-value",
    "srsgd-gradient",
    "optax.adam-value",
    "qhm-gradient",
)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "inner",
    [
        ox.momentum_sgd(0.9, 0.99, bias_correction=True),
        ox.qhm(0.9, 0.9, 0.9),
        ox.aggmo(0.3),
        ox.srsgd(0.9, 1000),
        optax.sgd(0.9, 0.99, nesterov=True),
        optax.adam(0.1),
    ],
    ids=["corrected", "qhm", "aggmo", "srsgd", "optax.sgd", "optax.adam"],
)
def test_a_restart_is_a_new_optimizer(inner, rule):
    """After it, all steps up to the next are those of `inner` from there on."""
    tx = ox.adaptive_restart(inner, rule=rule)
    path, states = descend(tx, start=np.float32(START), steps=200)
    restart, end = (*restarted_at(states), 200)[:2]
    assert 0 < restart < end
    again, fresh = descend(tx, start=path[restart - 1], steps=end - restart)
    np.testing.assert_allclose(again, path[restart:end], 1e-5, 1e-6)
    last = jax.tree.map(lambda x: x[-1], fresh.inner_state)
    expected = jax.tree.map(lambda x: x[end - 1], states.inner_state)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), last, expected)


def restarted_in_the_middle(tx, **extra_args):
    """The state after eight steps with a restart at the fifth."""
    params = jnp.ones(2)
    state = tx.init(params)
    for step in range(8):
        sign = 1 if step < 4 else -1  # as if the last step had gone too far
        _, state = tx.update(sign * params, state, params, **extra_args)
    assert state.restarts == 1
    return state


def falling(t):
    return 0.1 / (1 + t)


def is_schedule(node):
    return isinstance(node, optax.ScaleByScheduleState)


def test_counts_of_learning_rates_go_on():
    def count(tx):
        state = restarted_in_the_middle(ox.adaptive_restart(tx)).inner_state
        found = jax.tree.leaves(state, is_leaf=is_schedule)
        return [int(node.count) for node in found if is_schedule(node)]

    assert count(optax.sgd(falling, 0.9)) == [8]
    assert count(ox.momentum_sgd(falling, 0.9, learning_rate_inside=False)) == [8]
    assert count(optax.masked(optax.sgd(falling, 0.9), True)) == [8]
    adam = restarted_in_the_middle(ox.adaptive_restart(optax.adam(falling))).inner_state
    assert (int(adam[0].count), int(adam[1].count)) == (4, 8)


def test_what_is_no_momentum_goes_on():
    rules = restarted_in_the_middle(
        ox.adaptive_restart(
            ox.with_rules(
                optax.scale_by_adam(), falling, {".*": ox.Rule(frozen_until=2)}
            )
        )
    ).inner_state
    assert (int(rules.count), int(rules.inner_state.count)) == (8, 4)
    plateau = optax.contrib.reduce_on_plateau(0.5, patience=1, rtol=1.0)
    tx = ox.adaptive_restart(optax.chain(optax.sgd(0.1, 0.9), plateau))
    state = restarted_in_the_middle(tx, value=jnp.float32(1)).inner_state
    assert state[1].scale < 0.1


def test_norms_of_hyperball_stay():
    chosen = {"mask": lambda params: True}
    tx = ox.adaptive_restart(ox.hyperball(optax.sgd(0.1, 0.9), **chosen))
    params, grads = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    state = tx.init(params)
    for sign in (1, 1, -1):
        _, state = tx.update(sign * grads, state, 2 * params)
    assert state.restarts == 1
    assert state.inner_state.norms == 1


def test_a_leaf_without_a_gradient_waits():
    tx = ox.adaptive_restart(optax.adam(0.1))
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    state = tx.init(params)
    for sign in (1, 1, -1):
        grads = {"a": sign * params["a"], "b": None}
        updates, state = tx.update(grads, state, params)
    assert updates["b"] is None
    assert state.restarts == 1
    np.testing.assert_allclose(updates["a"], 0.1, rtol=1e-4)


def test_a_learning_rate_inside_of_the_momentum_starts_again():
    state = restarted_in_the_middle(
        ox.adaptive_restart(ox.momentum_sgd(falling, 0.9))
    ).inner_state
    assert state.count == 4


def test_injected_hyperparameters_stay():
    tx = ox.adaptive_restart(optax.inject_hyperparams(optax.sgd)(falling, momentum=0.9))
    params = jnp.ones(2)
    state = tx.init(params)
    state.inner_state.hyperparams["momentum"] = jnp.float32(0.8)
    for sign in (1, 1, -1):
        updates, state = tx.update(sign * params, state, params)
    assert state.restarts == 1
    assert state.inner_state.hyperparams["momentum"] == jnp.float32(0.8)
    assert state.inner_state.count == 3
    np.testing.assert_allclose(updates, 0.1 / 3)  # the third rate, and no momentum


def test_plain_momentum_that_restarts_after_the_step_uphill_may_diverge(x64):
    """So a restart replaces this step, unlike in the paper."""
    curvature, rate, gamma = np.logspace(-np.log10(30), 0, 20), 0.9, 0.95
    x, v = np.ones(20), np.zeros(20)
    for _ in range(2000):
        g = curvature * x
        v = gamma * v - rate * g
        x, v = x + v, v * (g @ v <= 0)
    assert np.abs(x).max() > 1e3
    inner = ox.momentum_sgd(rate, gamma)
    for tx in (inner, ox.adaptive_restart(inner)):
        path, _ = descend(tx, curvature, np.ones(20), 2000)
        assert np.abs(path[-1]).max() < 1e-9


def test_extra_arguments_are_passed_on():
    def update(updates, state, params=None, *, value, other, **extra):
        assert not extra
        return jax.tree.map(lambda u: -u * value * other(2.0), updates), state

    inner = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    ones = jnp.ones(2)
    for rule in RULES:
        tx = ox.adaptive_restart(inner, rule=rule)
        step = jax.jit(
            lambda state, value: tx.update(  # noqa: B023
                ones, state, ones, value=value, other=lambda x: 3 * x
            )
        )
        updates, _ = step(tx.init(ones), 2.0)
        np.testing.assert_array_equal(updates, -12)


def test_losses_that_are_not_numbers_do_not_restart():
    tx = ox.adaptive_restart(optax.sgd(0.1, 0.9), rule="value")
    ones = jnp.ones(2)
    state, restarts = tx.init(ones), []
    for value in (3.0, 2.0, np.nan, 5.0, 6.0, 6.0, np.inf):
        _, state = tx.update(ones, state, ones, value=value)
        restarts.append(int(state.restarts))
    assert restarts == [0, 0, 0, 0, 1, 1, 2]


def test_the_state_may_be_donated_and_the_loss_kept():
    tx = ox.adaptive_restart(optax.sgd(0.1, 0.9), rule="value")
    ones, value = jnp.ones(2), jnp.float32(3)
    _, state = tx.update(ones, tx.init(ones), ones, value=value)
    state.value.delete()
    assert value == 3


def test_typed_keys_in_the_state():
    noisy = optax.chain(
        optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.sgd(0.1, 0.9)
    )
    tx = ox.adaptive_restart(noisy)
    ones = jnp.ones(2)
    state = tx.init(ones)
    for _ in range(3):
        _, state = tx.update(ones, state, ones)
    assert state.restarts == 0


@pytest.mark.daily(
    "True-True-gradient", "True-False-value", "False-False-gradient", "False-True-value"
)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("sharded", [True, False])
def test_workers_restart_together(rule, check_vma, sharded):
    """With shards of the parameters, and with gradients of their own."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    curvature = jnp.logspace(-2, 0, 16)
    start = jnp.ones(16)
    weights = jnp.arange(8.0) / 3.5  # of a mean of 1

    def averaged(inner):
        def update(updates, state, params=None, **extra_args):
            mean = jax.lax.pmean(updates, "x")
            return inner.update(mean, state, params, **extra_args)

        return optax.GradientTransformationExtraArgs(inner.init, update)

    inner = ox.momentum_sgd(0.9, 0.99)
    tx = ox.adaptive_restart(inner if sharded else averaged(inner), rule=rule)

    def train(start, curvature, weight):
        def step(carry, _):
            params, state = carry
            value = jnp.sum(curvature * params**2)
            grads = curvature * params
            if sharded:
                value = jax.lax.psum(value, "x")
            else:
                grads, value = grads * weight, value * weight[0]
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), None

        state = tx.init(start)
        params, state = jax.lax.scan(step, (start, state), length=100)[0]
        return params, state.restarts[None]

    spec = P("x") if sharded else P()
    run = jax.shard_map(
        train,
        mesh=mesh,
        in_specs=(spec, spec, P("x")),
        out_specs=(spec, P("x")),
        check_vma=check_vma,
    )
    params, restarts = jax.jit(run)(start, curvature, weights)
    alone = ox.adaptive_restart(inner, rule=rule)
    path, states = descend(alone, curvature, start, 100)
    assert states.restarts[-1] > 2
    np.testing.assert_array_equal(restarts, states.restarts[-1])
    np.testing.assert_allclose(params, path[-1], 1e-3, 1e-5)


def steps_to(path, curvature, tolerance):
    """Steps after which the loss stays below a part of the first one."""
    losses = 0.5 * jnp.square(path) @ curvature
    above = losses > tolerance * 0.5 * jnp.sum(curvature)
    return jnp.where(
        above.any(), path.shape[0] - jnp.argmax(above[::-1]), jnp.zeros((), int)
    )


def problems():
    """Quadratics of many conditionings and spectra, and learning rates for them."""
    for condition in (10, 30, 100, 300, 1000):
        spectra = (
            np.logspace(-np.log10(condition), 0, 20),
            np.linspace(1 / condition, 1, 20),
            np.repeat([1 / condition, 1], 10),
        )
        for curvature in spectra:
            for rate in (0.05, 0.1, 0.3, 0.5, 0.9):
                yield curvature, rate


def steps_with_and_without(excess, rule):
    """Steps to three tolerances, for all problems.

    Momentum is `excess` times as far below 1 as where the slowest direction begins to
    oscillate, which is the best constant one for a quadratic with that direction alone.
    """
    curvatures, rates = map(jnp.array, zip(*problems(), strict=True))

    def steps(curvature, rate):
        momentum = 1 - excess * (1 - (1 - jnp.sqrt(rate * curvature[0])) ** 2)
        plain = ox.momentum_sgd(rate, momentum)
        paths = [
            descend(tx, curvature, jnp.ones(20), 3000)[0]
            for tx in (ox.adaptive_restart(plain, rule=rule), plain)
        ]
        return [
            jnp.stack([steps_to(path, curvature, x) for x in (1e-2, 1e-4, 1e-8)])
            for path in paths
        ]

    return jax.jit(jax.vmap(steps))(curvatures, rates)


@pytest.mark.daily("0.5-gradient", "0.02-value")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("excess", [0.5, 0.1, 0.02])
def test_restarts_are_never_slower_where_all_directions_oscillate(excess, rule, x64):
    restarted, plain = steps_with_and_without(excess, rule)
    assert (restarted < 3000).all()
    assert (restarted <= plain).all()
    assert np.median(restarted / plain) < {0.5: 0.5, 0.1: 0.15, 0.02: 0.04}[excess]


@pytest.mark.parametrize(("rule", "worst"), [("gradient", 1.12), ("value", 1.33)])
def test_the_docstring_tells_what_restarts_cost_at_the_best_momentum(rule, worst, x64):
    restarted, plain = steps_with_and_without(1.0, rule)
    ratios = restarted / plain
    assert ratios.max() == pytest.approx(worst, abs=0.01)
    assert np.median(ratios) < 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inner": 0.1}, TypeError, "`inner` must be a gradient transformation"),
        (
            {"rule": "loss"},
            ValueError,
            r"`rule` must be one of \('gradient',",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.adaptive_restart(**{"inner": optax.sgd(0.1), **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": 1.0}, "`params` must be given to `update`, got None"),
        (
            {"params": jnp.ones(2)},
            "`value` must be given to `update` with rule=",
        ),
        (
            {"params": jnp.ones(2), "value": jnp.ones(2)},
            r"`value` must be a scalar, got an array of shape \(2,\)",
        ),
    ],
)
def test_bad_arguments_of_update(arguments, message):
    tx = ox.adaptive_restart(optax.sgd(0.1), rule="value")
    with pytest.raises(ValueError, match=message):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), **arguments)
