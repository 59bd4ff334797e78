"""Catalogue of the bundled tasks, and loading of tasks by name."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from optax_extras._core.importing import load_attribute
from optax_extras.tasks._analytic import (
    jumping_quadratic,
    line,
    noisy_quadratic,
    quadratic,
    rosenbrock,
)
from optax_extras.tasks._digits import digits
from optax_extras.tasks._regression import breast_cancer, diabetes
from optax_extras.tasks._task import Task
from optax_extras.tasks._text import characters

# The bundled tasks: functions of options that make them, by name.
TASKS: dict[str, Callable[..., Task]] = {
    "digits": digits,
    "digits-softmax": partial(digits, hidden=None),
    "digits-wrong-labels": partial(digits, wrong_labels=0.3),
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "characters": characters,
    "quadratic": quadratic,
    "noisy-quadratic": noisy_quadratic,
    "jumping-quadratic": jumping_quadratic,
    "rosenbrock": rosenbrock,
    "line": line,
}


def load_task(name: str, **arguments: Any) -> Task:
    """Loads a bundled task, or a `Task` or task factory at ``module:attribute``.

    Args:
      name: one of `TASKS`, or ``module:attribute``; modules are also searched for in
        the current folder.
      **arguments: arguments of the task factory, such as ``batch_size``.

    Returns:
      The task.

    Raises:
      ValueError: there is no such task, or it does not take these arguments.
    """
    if name not in TASKS and ":" not in name:
        raise ValueError(
            f"`task` must be MODULE:ATTRIBUTE or one of {', '.join(TASKS)}; got"
            f" {name!r}"
        )
    found = TASKS[name] if name in TASKS else load_attribute(name)
    takes = inspect.signature(found).parameters if callable(found) else ()
    for argument in arguments:
        if argument not in takes:
            raise ValueError(f"task {name!r} does not take `{argument}`")
    task = found(**arguments) if callable(found) else found
    if not isinstance(task, Task):
        raise ValueError(f"task {name!r} must be a Task, got {task!r}")
    return task
