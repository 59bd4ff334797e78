"""Names of bundled tasks, which tell the options of their factories apart."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

from optax_extras.tasks._task import Task

P = ParamSpec("P")


def named(
    **variants: Mapping[Any, str],
) -> Callable[[Callable[P, Task]], Callable[P, Task]]:
    """Decorator of task factories that adds changed options to the task's name.

    With ``rate={2: "fast"}``, the task ``slow`` of a factory is named ``slow`` with all
    options at their defaults, ``fast`` with ``rate=2`` and ``slow(rate=3)`` with
    another value.

    Args:
      **variants: names that replace the task's, by values of an option.
    """

    def decorate(make: Callable[P, Task]) -> Callable[P, Task]:
        signature = inspect.signature(make)

        @wraps(make)
        def make_named(*args: P.args, **kwargs: P.kwargs) -> Task:
            task = make(*args, **kwargs)
            options = {
                option: value
                for option, value in signature.bind(*args, **kwargs).arguments.items()
                if value != signature.parameters[option].default
            }
            known = (
                (option, name)
                for option, names in variants.items()
                for value, name in names.items()
                if option in options and options[option] == value
            )
            option, name = next(known, ("", task.name))
            options.pop(option, None)
            if options:
                name += f"({', '.join(f'{k}={v}' for k, v in options.items())})"
            return dataclasses.replace(task, name=name)

        return make_named

    return decorate
