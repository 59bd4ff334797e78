"""Points of gradients and of evaluation: known methods, users' functions, mistakes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

import optax_extras as ox
from optax_extras.tuning import Task, batches_of_step, lr_range_test, sweep
from optax_extras.tuning._points import Points
from optax_extras.tuning._programs import Trials

from plain_loop import parameters, train

RATES = [0.02, 0.1]


def loss(params, batch, key=None):
    return jnp.sum((params["a"] - 0.1 * batch) ** 2) + 5 * jnp.sum(params["b"] ** 2)


TASK = Task(
    "two-leaves",
    lambda key: {"a": jax.random.normal(key, (3,)), "b": jnp.ones(2)},
    batches_of_step(
        lambda key, step: jax.random.normal(jax.random.fold_in(key, step), (3,))
    ),
    loss,
    lambda params: {"distance": loss(params, 0.0), "first": params["a"][0]},
)


def run(make, rates=RATES, **options):
    options = {"steps": 10, "eval_every": 4, "seeds": 2, **options}
    return sweep(TASK, make, {"learning_rate": rates}, **options)


def clipped(make):
    return lambda learning_rate: optax.chain(
        optax.clip_by_global_norm(1.0), make(learning_rate)
    )


def injected(make):
    return lambda learning_rate: optax.inject_hyperparams(make)(learning_rate)


def masked(make):
    return lambda learning_rate: optax.chain(
        optax.masked(make(learning_rate), {"a": True, "b": False}),
        optax.masked(optax.scale(-0.1), {"a": False, "b": True}),
    )


def partitioned(make):
    return lambda learning_rate: optax.partition(
        {"x": make(learning_rate), "y": make(0.01)}, {"a": "x", "b": "y"}
    )


WRAPS = [lambda make: make, clipped, injected, masked, partitioned]


def same_metrics(result, make, **points):
    """Whether the sweep's second rate and second seed are the plain loop."""
    alone = train(TASK, make(RATES[1]), steps=10, seed=1, eval_every=4, **points)
    for name, values in alone.items():
        found = result.metrics[name][1, 1]
        np.testing.assert_allclose(found, values, rtol=2e-5, atol=1e-6)


@pytest.mark.daily("injected", "masked")
@pytest.mark.parametrize("wrap", WRAPS)
def test_look_ahead_gradients_are_taken_at_the_look_ahead_point(wrap):
    make = wrap(ox.nesterov_lookahead)
    same_metrics(run(make), make, gradient_params=ox.nesterov_lookahead_params)


def averages(state, params):
    """The average of each leaf, by the state that holds it."""

    def is_free(node):
        return isinstance(node, ScheduleFreeState)

    found = {**params}
    for free in filter(is_free, jax.tree.leaves(state, is_leaf=is_free)):
        for name, z in free.z.items():
            if not isinstance(z, optax.MaskedNode):
                found[name] = schedule_free_eval_params(
                    free._replace(z=z), params[name]
                )
    return found


@pytest.mark.daily("partitioned", "clipped")
@pytest.mark.parametrize("wrap", WRAPS)
def test_schedule_free_methods_are_evaluated_at_the_average(wrap):
    make = wrap(optax.contrib.schedule_free_sgd)
    same_metrics(run(make), make, eval_params=averages)


def test_look_ahead_points_are_the_iterates_of_nesterov_momentum():
    # Sutskever's change of variables: θ − γ v of one method is θ of the other.
    nesterov = run(partial(ox.momentum_sgd, nesterov=True))
    ahead = run(ox.nesterov_lookahead, eval_params=ox.nesterov_lookahead_params)
    np.testing.assert_allclose(ahead.losses, nesterov.losses, rtol=1e-4)
    for name, values in nesterov.metrics.items():
        np.testing.assert_allclose(ahead.metrics[name], values, rtol=1e-4, atol=1e-6)


def half(state, params):
    return jax.tree.map(lambda p: p / 2, params)


class Unhashable:
    __hash__ = None

    def __call__(self, state, params):
        return half(state, params)


@pytest.mark.slow
def test_functions_of_the_user():
    result = run(optax.adam, gradient_params=half, eval_params=half)
    same_metrics(result, optax.adam, gradient_params=half, eval_params=half)
    same_metrics(run(optax.adam), optax.adam)  # a program of its own
    plain = run(ox.nesterov_lookahead, gradient_params=parameters)
    same_metrics(plain, ox.nesterov_lookahead)
    other = run(optax.adam, gradient_params=half, eval_params=Unhashable())
    np.testing.assert_array_equal(other.metrics["distance"], result.metrics["distance"])


@pytest.mark.parametrize(
    "make", [ox.nesterov_lookahead, optax.contrib.schedule_free_sgd]
)
def test_chunks_on_many_devices_give_what_one_gives(make):
    rates = np.geomspace(0.01, 0.1, 5)
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    one, many = run(make, rates), run(make, rates, mesh=mesh, trials_at_once=4)
    for name, values in one.metrics.items():
        np.testing.assert_allclose(many.metrics[name], values, rtol=1e-4, atol=1e-6)


def test_only_a_method_with_another_point_costs_a_program_and_memory():
    def compiled(make, **points):
        trials = Trials(task, make, 5, None, Points(**points))
        return trials.compile({"learning_rate": jnp.ones(1)}, jnp.zeros(1, jnp.uint32))

    task = Task(
        "large",
        lambda key: jnp.zeros(250_000),
        batches_of_step(lambda key, step: step),
        lambda x, batch, key: jnp.sum(x**2),
        lambda x: {"m": jnp.sum(jnp.sort(jnp.stack([x, x, x, x, x, x, x]), axis=0))},
    )
    plain, free = compiled(optax.sgd), compiled(optax.contrib.schedule_free_sgd)
    assert plain.point is None
    assert compiled(ox.nesterov_lookahead).point is None
    assert free.point is not None
    halved = compiled(optax.sgd, eval_params=half)
    assert halved.bytes_needed == plain.bytes_needed + 1_000_000
    assert free.bytes_needed >= plain.bytes_needed + 2_000_000  # z and the average


def test_the_average_has_the_dtype_of_the_parameters():
    params = {"a": jnp.ones(2, jnp.bfloat16)}
    tx = optax.contrib.schedule_free_sgd(0.1, state_dtype=jnp.float32)
    point = Points().of_evaluation(tx.init(params), params)
    assert point["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(point["a"].astype(jnp.float32), 1.0, rtol=0.01)


@pytest.mark.parametrize("make", [ox.nesterov_lookahead, optax.sgd])
@pytest.mark.parametrize("given", [None, half])
def test_a_range_test_is_the_plain_loop(make, given):
    result = lr_range_test(
        TASK, make, min_lr=0.01, max_lr=0.5, steps=8, seeds=[4], gradient_params=given
    )
    looks = make is ox.nesterov_lookahead
    point = given or (ox.nesterov_lookahead_params if looks else parameters)
    init, order, *_ = jax.random.split(jax.random.key(4), 4)
    params = TASK.init(init)
    state = make(0.01).init(params)
    for step, rate in enumerate(result.learning_rates):
        batch = jax.random.normal(jax.random.fold_in(order, step), (3,))
        value, grads = jax.value_and_grad(loss)(point(state, params), batch)
        np.testing.assert_allclose(result.losses[0, step], value, rtol=1e-4)
        updates, state = make(rate).update(grads, state, params)
        params = optax.apply_updates(params, updates)


MISTAKES = [
    (0.5, TypeError, "must be a function, got 0.5"),
    (lambda params: params, TypeError, r"called with \(state, parameters\), but it"),
    (lambda state, params: params["a"], ValueError, r"structure.*got float32\[3\]"),
    (
        lambda state, params: {**params, "b": params["a"]},
        ValueError,
        r"parameters, \{a: float32\[3\], b: float32\[2\]\}, got .*b: float32\[3\]",
    ),
    (
        lambda state, params: optax.tree.cast(params, jnp.bfloat16),
        ValueError,
        r"dtypes of the parameters, .*got \{a: bfloat16\[3\]",
    ),
    (
        lambda state, params: state.velocity,
        AttributeError,
        r"(?s)no attribute.*was traced by JAX with the arguments .*a: float32\[3\]",
    ),
]


@pytest.mark.parametrize("name", ["gradient_params", "eval_params"])
@pytest.mark.parametrize(("function", "error", "message"), MISTAKES)
def test_wrong_functions(name, function, error, message):
    with pytest.raises(error, match=message) as found:
        run(optax.adam, **{name: function})
    notes = getattr(found.value, "__notes__", [])
    assert f"`{name}`" in " ".join([str(found.value), *notes])


@pytest.mark.parametrize(("function", "error", "message"), MISTAKES)
def test_wrong_functions_of_a_range_test(function, error, message):
    with pytest.raises(error, match=message):
        lr_range_test(TASK, optax.adam, gradient_params=function)
