"""Optimizers that the command knows by name, and loading of others."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

import optax_extras
from optax_extras._core.factories import keyed
from optax_extras._core.importing import cause, check_call, load
from optax_extras.tasks import Task

Factory = Callable[..., optax.GradientTransformation]

OPTIMIZERS: Mapping[str, Factory] = {
    "sgd": optax.sgd,
    "noisy-sgd": optax_extras.noisy_sgd,
    "momentum": optax_extras.momentum_sgd,
    "nesterov": partial(optax_extras.momentum_sgd, nesterov=True),
    "momentum-corrected": partial(optax_extras.momentum_sgd, bias_correction=True),
    "adam": optax.adam,
    "adamw": optax.adamw,
    "adasmooth": optax_extras.adasmooth,
}
# What the commands that train give to a factory.
GIVEN = {"learning_rate": "the command varies it", "key": "it comes from the seed"}


def load_factory(
    text: str,
    known: Mapping[str, Factory] = OPTIMIZERS,
    given: Mapping[str, str] = GIVEN,
    option: str = "--optimizer",
) -> Factory:
    """Loads the factory of an optimizer.

    Args:
      text: one of the known names, or ``module:function``, perhaps with arguments that
        are Python literals; modules are also searched for in the current folder.
      known: factories by name.
      given: arguments that the command gives, and why; ``key`` only where it is taken.
      option: where the text comes from.

    Raises:
      ValueError: there is no such function, it does not take what the command gives and
        the arguments, or it needs others.
    """
    found, arguments = load(text, known, option)
    for name in given:
        if name in arguments:
            raise ValueError(f"{text!r} must not give `{name}`; {given[name]}")
    needed = [name for name in given if name != "key"]
    check_call(repr(text), found, [*needed, *arguments], ["key"])
    return partial(found, **arguments) if arguments else found


def check_step(text: str, factory: Factory, task: Task) -> None:
    """Traces an optimizer's step on the parameters of a task, without computing it.

    Raises:
      ValueError: it cannot be traced.
    """

    def step(rate: jax.Array, seed: jax.Array) -> Any:
        key = jax.random.key(seed)
        params = task.init(key)
        tx = keyed(factory, key)(learning_rate=rate)
        return tx.update(params, tx.init(params), params)

    with blamed_on(text, task):
        rate = jax.ShapeDtypeStruct((), np.float32)
        seed = jax.ShapeDtypeStruct((), np.uint32)
        jax.eval_shape(step, rate, seed)


@contextlib.contextmanager
def blamed_on(text: str, task: Task) -> Iterator[None]:
    """Makes a `ValueError` of any error, which names the optimizer and the task."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"cannot train {task.name!r} with {text!r}: {cause(error)}"
        ) from error
