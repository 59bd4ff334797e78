"""Mistakes in a task, which are told before anything is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

from optax_extras.tasks import TASKS, load_task
from optax_extras.tuning import (
    Batches,
    Goal,
    Task,
    batches_of_step,
    lr_range_test,
    sweep,
)
from optax_extras.tuning._task_checks import check_task

GOOD = Task(
    "mine",
    lambda key: {"w": jnp.zeros(3), "z": jnp.zeros(2, jnp.complex64)},
    batches_of_step(lambda key, step: jnp.ones(3)),
    lambda params, batch, key: jnp.sum(params["w"] * batch),
    lambda params: {
        "total": jnp.sum(params["w"]),
        "positive": jnp.sum(params["w"] > 0),
    },
    Goal("total"),
)


def evaluates(metrics):
    return {"evaluate": lambda params: metrics, "goal": Goal()}


def broken_take(entry):
    raise IndexError("no such row")


MISTAKES = {
    "vector metric": (
        {"evaluate": lambda params: {"total": params["w"]}},
        ValueError,
        r"the metric 'total' of task 'mine' must be a scalar, got shape \(3,\)",
    ),
    "unknown goal": (
        {"goal": Goal("accuracy")},
        ValueError,
        "`metric` of the goal of task 'mine' must be one of loss, mean_loss, total,"
        " positive, got 'accuracy'",
    ),
    "unknown report": (
        {"goal": Goal("total", reported="accuracy")},
        ValueError,
        "`reported` of the goal of task 'mine' must be one of loss, .*got 'accuracy'",
    ),
    "no dict": (
        evaluates(0.5),
        TypeError,
        "must return a dict of metrics.*got a float",
    ),
    "string metric": (
        evaluates({"total": "low"}),
        TypeError,
        "the metric 'total' of task 'mine' must be a scalar, got a str",
    ),
    "nested metric": (evaluates({"a": {"b": 1.0}}), TypeError, "scalar, got a dict"),
    "boolean metric": (
        evaluates({"a": jnp.bool_(True)}),
        TypeError,
        "the metric 'a' of task 'mine' must be a real number, got bool",
    ),
    "numbered metric": (
        evaluates({3: 1.0}),
        TypeError,
        "metric 3 .* named by a string",
    ),
    "reserved name": (
        evaluates({"loss": 1.0}),
        ValueError,
        "metric 'loss' of task 'mine' must have another name: loss, mean_loss, seed",
    ),
    "vector loss": (
        {"loss": lambda params, batch, key: params["w"]},
        ValueError,
        r"the loss of task 'mine' must be a scalar, got shape \(3,\)",
    ),
    "integer loss": (
        {"loss": lambda params, batch, key: jnp.sum(params["w"] > 0)},
        TypeError,
        "the loss of task 'mine' must be floating-point, got int32",
    ),
    "loss and more": (
        {"loss": lambda params, batch, key: (0.0, params)},
        TypeError,
        "the loss of task 'mine' must be a scalar, got a tuple",
    ),
    "loss without key": (
        {"loss": lambda params, batch: 0.0},
        TypeError,
        r"`loss` of task 'mine' is called with \(parameters, mini-batch, key\), but it"
        r" takes \(params, batch\): too many positional arguments",
    ),
    "evaluate with data": (
        {"evaluate": lambda params, data: {}},
        TypeError,
        r"`evaluate` of task 'mine' is called with \(parameters\), but it takes"
        r" \(params, data\): missing a required argument: 'data'",
    ),
    "init without key": (
        {"init": lambda: jnp.zeros(3)},
        TypeError,
        r"`init` of task 'mine' is called with \(key\), but it takes \(\)",
    ),
    "integer parameters": (
        {"init": lambda key: {"w": jnp.zeros(3), "n": {"steps": jnp.int32(3)}}},
        TypeError,
        r"`init` of task 'mine' must return floating-point or complex arrays, got int32"
        r" at `\['n'\]\['steps'\]`",
    ),
    "functions in parameters": (
        {"init": lambda key: [jnp.zeros(3), jnp.tanh]},
        TypeError,
        r"must return floating-point .* got a \w+ at `\[1\]`",
    ),
    "no parameters": ({"init": lambda key: {}}, ValueError, "return some parameters"),
    "plan of one entry": (
        {"batches": Batches(lambda key, start, length: start, lambda entry: entry)},
        ValueError,
        r"`batches.plan` of task 'mine' must stack the entries .* got shape \(\)",
    ),
    "plan without length": (
        {"batches": Batches(lambda key, start: start, lambda entry: entry)},
        TypeError,
        r"`batches.plan` of task 'mine' is called with \(key, first step, number",
    ),
    "take fails": (
        {"batches": dataclasses.replace(GOOD.batches, take=broken_take)},
        IndexError,
        r"(?s)no such row.*`batches.take` of task 'mine' was traced by JAX with the"
        r" arguments \(key<fry>\[\], int32\[\]\)",
    ),
    "loss fails": (
        {"loss": lambda params, batch, key: params["b"]},
        KeyError,
        r"(?s)'b'.*`loss` of task 'mine' was traced by JAX with the arguments"
        r" \{w: float32\[3\], z: complex64\[2\]\}, float32\[3\], key<fry>\[\]",
    ),
    "a Python if": (
        {"loss": lambda params, batch, key: 1.0 if params["w"][0] > 0 else 0.0},
        jax.errors.TracerBoolConversionError,
        "`loss` of task 'mine' was traced by JAX",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told(name):
    change, error, message = MISTAKES[name]
    with pytest.raises(error, match=message):
        check_task(dataclasses.replace(GOOD, **change))


def never(learning_rate):
    raise AssertionError("an optimizer was made")


def test_it_is_told_before_an_optimizer_is_made():
    change, error, message = MISTAKES["unknown goal"]
    task = dataclasses.replace(GOOD, **change)
    with pytest.raises(error, match=message):
        sweep(task, never, {"learning_rate": [0.1]}, steps=1)
    with pytest.raises(error, match=message):
        lr_range_test(task, never)


def test_what_is_right_passes():
    check_task(GOOD)
    check_task(dataclasses.replace(GOOD, **evaluates({})))
    unplanned = Batches(lambda key, start, length: None, lambda entry: jnp.ones(3))
    check_task(dataclasses.replace(GOOD, batches=unplanned))
    for name in TASKS:
        check_task(load_task(name))


def test_a_task_without_metrics_is_swept():
    task = dataclasses.replace(
        GOOD, init=lambda key: {"w": jnp.ones(3)}, **evaluates({})
    )
    result = sweep(task, optax.sgd, {"learning_rate": [0.1, 1.0]}, steps=2, seeds=1)
    assert result.best() == {"learning_rate": 1.0}
