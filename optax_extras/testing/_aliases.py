"""Specs of the optimizers that optax and `optax.contrib` export."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import optax
from optax import contrib

from optax_extras.testing._spec import Spec, StepArguments

RATES = ("learning_rate", "max_learning_rate")
# What cannot be read off a signature, by the name of the alias.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    # Its own rate weighs an average; the base optimizer has that of the steps.
    "schedule_free": {"base_optimizer": optax.sgd(0.1), "learning_rate": 0.1},
}
_RATES: dict[str, float | None] = {
    "cocob": 1.0,
    "dadapt_adamw": 1.0,
    "dog": 1.0,
    "dowg": 1.0,
    "lars": 10.0,  # times its trust coefficient of 0.001
    "lbfgs": None,  # its line search finds one
    "momo": 1.0,
    "polyak_sgd": 1.0,
    "prodigy": 1.0,
    "simplified_ademamix": 0.001,  # its momentum adds up a hundred gradients
}
_EXTRA_ARGS: dict[str, Callable[[StepArguments], Mapping[str, Any]]] = {
    "lbfgs": lambda step: {
        "value": step.value,
        "grad": step.grad,
        "value_fn": step.value_fn,
    },
    "momo": lambda step: {"value": step.value},
    "momo_adam": lambda step: {"value": step.value},
    "polyak_sgd": lambda step: {"value": step.value},
    "sophia": lambda step: {"obj_fn": step.value_fn},
}
_EVAL_PARAMS = dict.fromkeys(
    ("schedule_free", "schedule_free_adamw", "schedule_free_sgd"),
    contrib.schedule_free_eval_params,
)
_RANDOM = ("noisy_sgd",)
LEFT_OUT = {
    "dpsgd": "it takes one gradient for each example",
    "optimistic_adam": "deprecated in favour of optimistic_adam_v2",
}


def aliases_of(module: str) -> list[Spec]:
    """A spec for each optimizer that a module exports, in the order of their names.

    An optimizer is a function that returns a transformation and takes a learning rate.
    Its hyperparameters are the arguments that are annotated as arrays and have a number
    as default, and its schedules those of them that may be functions.

    Args:
      module: `"optax"`, `"optax.contrib"`, or a module with aliases like theirs.

    Raises:
      ValueError: the module cannot be imported, or has no such function.
    """
    try:
        namespace = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"cannot import {module!r}: {error}") from error
    specs = [
        _spec(name, function)
        for name, function in sorted(vars(namespace).items())
        if _is_alias(name, function)
    ]
    if not specs:
        raise ValueError(f"{module!r} has no optimizer that takes a learning rate")
    return specs


def _is_alias(name: str, function: Any) -> bool:
    if name.startswith(("_", "scale_by_")) or name in LEFT_OUT:
        return False
    if not inspect.isfunction(function):
        return False
    signature = inspect.signature(function)
    return "GradientTransformation" in str(signature.return_annotation) and any(
        rate in signature.parameters for rate in RATES
    )


def _spec(name: str, function: Callable[..., Any]) -> Spec:
    parameters = inspect.signature(function).parameters
    hyperparameters, schedules = {}, []
    for argument, parameter in parameters.items():
        if argument in _ARGUMENTS.get(name, {}):
            continue
        annotation = str(parameter.annotation)
        value: Any = parameter.default
        if argument in RATES:
            value = _RATES.get(name, 0.1)
        if "Array" in annotation and isinstance(value, float):
            hyperparameters[argument] = value
            if "Callable" in annotation:
                schedules.append(argument)
    supports = {"descent", "random"} if name in _RANDOM else {"descent"}
    return Spec(
        name,
        functools.partial(function, **_ARGUMENTS.get(name, {})),
        hyperparameters=hyperparameters,
        schedules=schedules,
        extra_args=_EXTRA_ARGS.get(name),
        eval_params=_EVAL_PARAMS.get(name),
        supports=supports,
    )
