"""Specs of the optimizers that a module exports, learned from how they behave."""

import collections.abc
import dataclasses
import functools
import inspect
import itertools
import typing
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from optax_extras._core.importing import cause, import_module
from optax_extras.momentum import nesterov_lookahead_params
from optax_extras.testing._spec import PointOf, Spec, StepArguments
from optax_extras.testing._subject import Subject, parameters

RATES = ("learning_rate", "max_learning_rate")
STAGES = ("_", "add_", "scale_by_")  # what names of stages and private names start with
# Steps of these have an unusual size at any rate, which no signature tells.
_RATES = {
    "dog": 1.0,
    "dowg": 1.0,
    "lars": 10.0,  # times its trust coefficient of 0.001
    "simplified_ademamix": 0.001,  # its momentum adds up a hundred gradients
}
LEFT_OUT = {
    "dpsgd": "it takes one gradient for each example",
    "optimistic_adam": "deprecated in favour of optimistic_adam_v2",
    "with_rules": "it takes rules for the paths of parameters",
}
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
BASE = optax.sgd(0.1)
_EXTRA_ARGS: dict[str, Callable[[StepArguments], Any]] = {
    "value": lambda step: step.value,
    "grad": lambda step: step.grad,
    "value_fn": lambda step: step.value_fn,
    "obj_fn": lambda step: step.value_fn,
}


def aliases_of(module: str) -> list[Spec]:
    """A spec for each optimizer that a module exports, in the order of their names.

    An optimizer is a function that takes a learning rate and is annotated to return a
    transformation. Its hyperparameters are the floating-point arguments that may be
    arrays, and its schedules those of them that may be functions, by their annotations
    or by trial. An argument ``key`` makes it random, and other required arguments, as
    well as those of ``update``, are found by trial. Functions that require
    ``axis_name`` communicate, and are left out: they need a `Spec` with it.

    Args:
      module: `"optax"`, `"optax.contrib"`, or a module with aliases like theirs, which
        is also searched for in the current folder.

    Raises:
      ValueError: the module cannot be imported, or has no such function.
    """
    try:
        namespace = import_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot import {module!r}: {cause(error)}") from error
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("ignore")  # of what is only tried
        specs = [
            _spec(name, function)
            for name, function in sorted(vars(namespace).items())
            if _is_alias(name, function)
        ]
    if not specs:
        raise ValueError(
            f"{module!r} has no function that takes `learning_rate` and is annotated to"
            " return a `GradientTransformation`"
        )
    return specs


def _is_alias(name: str, function: Any) -> bool:
    if name.startswith(STAGES) or name in LEFT_OUT or not inspect.isfunction(function):
        return False
    signature = inspect.signature(function)
    axis = signature.parameters.get("axis_name")
    if axis is not None and axis.default is axis.empty:
        return False
    return "GradientTransformation" in str(signature.return_annotation) and any(
        rate in signature.parameters for rate in RATES
    )


def _spec(name: str, function: Callable[..., Any]) -> Spec:
    drafts = _drafts(name, function)
    first = next(drafts)
    spec = first if _runs(first) else next(filter(_runs, drafts), first)
    hints = _hints(function)
    values = spec.hyperparameters
    arrays = {
        k: v
        for k, v in values.items()
        if _is_declared(hints.get(k), jax.Array) or _runs(spec, arrays=[k])
    }
    schedules = [
        k
        for k in arrays
        if _is_declared(hints.get(k), collections.abc.Callable)
        or _runs(spec, schedules=[k])
    ]
    fixed = {k: v for k, v in values.items() if k not in arrays}
    return Spec(
        name,
        functools.partial(spec.make, **fixed),
        hyperparameters=arrays,
        schedules=schedules,
        extra_args=spec.extra_args,
        gradient_params=_if_it_reads(nesterov_lookahead_params, spec),
        eval_params=_if_it_reads(contrib.schedule_free_eval_params, spec),
        supports=_supports(spec),
    )


def _drafts(name: str, function: Callable[..., Any]) -> Iterator[Spec]:
    """Specs with every choice of required arguments and of arguments of `update`."""
    signature = inspect.signature(function).parameters
    rate = next(rate for rate in RATES if rate in signature)
    default = signature[rate].default
    numbers = {k: p.default for k, p in signature.items() if type(p.default) is float}
    required = [
        k
        for k, p in signature.items()
        if p.default is p.empty and k not in (rate, "key") and p.kind not in _VARIADIC
    ]
    for filled in itertools.product((0.01, BASE), repeat=len(required)):
        arguments = dict(zip(required, filled, strict=True))
        static = {k: v for k, v in arguments.items() if v is BASE}
        values = {**numbers, **{k: v for k, v in arguments.items() if v is not BASE}}
        own_rate = _RATES.get(name, numbers.get(rate, 0.1))
        for extra in _subsets(_EXTRA_ARGS):
            if static:
                static[rate] = own_rate  # it must stay that of the base
            elif default is None and "value_fn" in extra:
                values.pop(rate, None)  # a line search finds one
            else:
                values[rate] = own_rate
            yield Spec(
                name,
                functools.partial(function, **static),
                hyperparameters={k: values[k] for k in signature if k in values},
                extra_args=functools.partial(_pick, extra) if extra else None,
                supports={"random"} if "key" in signature else (),
            )


def _subsets(names: Collection[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(names) + 1):
        yield from itertools.combinations(names, size)


def _pick(names: Collection[str], step: StepArguments) -> Mapping[str, Any]:
    return {name: _EXTRA_ARGS[name](step) for name in names}


def _runs(
    spec: Spec, arrays: Collection[str] = (), schedules: Collection[str] = ()
) -> bool:
    """Whether a step can be traced, with hyperparameters traced or as schedules."""
    subject = Subject(spec)
    values = spec.hyperparameters
    constants = {k: optax.constant_schedule(values[k]) for k in schedules}

    def step(traced: Any) -> Any:
        tx = subject.make(**traced, **constants)
        return subject.advance(parameters(), tx=tx, steps=1).updates

    try:
        jax.eval_shape(step, {k: jnp.float32(values[k]) for k in arrays})
    except Exception:  # whatever a factory raises of what it does not take
        return False
    return True


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # what is imported for type checkers alone
        return {}


def _is_declared(hint: Any, kind: Any) -> bool:
    """Whether an annotation or a part of its union is of a kind."""
    return kind in (hint, typing.get_origin(hint)) or any(
        _is_declared(part, kind)
        for part in typing.get_args(hint)
        if typing.get_origin(hint) is not collections.abc.Callable
    )


def _if_it_reads(point: PointOf, spec: Spec) -> PointOf | None:
    """The function of state and parameters, or None where it raises on this state."""

    def evaluate() -> Any:
        return point(Subject(spec).make().init(parameters()), parameters())

    try:
        jax.eval_shape(evaluate)
    except Exception:
        return None
    return point


def _supports(spec: Spec) -> set[str]:
    """Random if two keys differ; no descent if the noise is half of a step or more."""
    if "random" not in spec.supports:
        return {"descent"}
    subject = Subject(spec)
    ones = jax.tree.map(jnp.ones_like, parameters())

    def draw(key: int) -> Any:
        tx = subject.make(key=key)
        return subject.update(tx, ones, tx.init(parameters()), parameters())[0]

    try:
        first, second = draw(0), draw(1)
    except Exception:
        return {"descent", "random"}
    noise = optax.tree.norm(optax.tree.sub(first, second)) / jnp.sqrt(2)
    if noise == 0 and _runs(dataclasses.replace(spec, supports=())):
        return {"descent"}
    drift = optax.tree.norm(optax.tree.add(first, second)) / 2
    return {"random"} if noise > drift / 2 else {"descent", "random"}
