"""Catalogue of the bundled tasks, and loading of tasks by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

from optax_extras._core.importing import cause, check_call, load
from optax_extras.tasks._analytic import (
    jumping_quadratic,
    line,
    noisy_quadratic,
    quadratic,
    rosenbrock,
)
from optax_extras.tasks._cart_pole import cart_pole
from optax_extras.tasks._digits import digits, federated_digits
from optax_extras.tasks._regression import breast_cancer, diabetes
from optax_extras.tasks._task import Task
from optax_extras.tasks._text import characters

# The bundled tasks: functions of options that make them, by name.
TASKS: dict[str, Callable[..., Task]] = {
    "digits": digits,
    "digits-softmax": partial(digits, hidden=None),
    "digits-wrong-labels": partial(digits, wrong_labels=0.3),
    "federated-digits": federated_digits,
    "federated-digits-mild": partial(federated_digits, concentration=1.0),
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "characters": characters,
    "quadratic": quadratic,
    "noisy-quadratic": noisy_quadratic,
    "jumping-quadratic": jumping_quadratic,
    "cart-pole": cart_pole,
    "rosenbrock": rosenbrock,
    "line": line,
}


def load_task(name: str, **arguments: Any) -> Task:
    """Loads a bundled task, or a `Task` or task factory at ``module:attribute``.

    Args:
      name: one of `TASKS`, or ``module:attribute``, perhaps with arguments of the task
        factory that are Python literals, as in ``"digits(hidden=16)"``; modules are
        also searched for in the current folder.
      **arguments: more arguments of the factory, such as ``batch_size``.

    Returns:
      The task. The name of a bundled one tells its options from the defaults, as in
      ``"digits(hidden=16)"``.

    Raises:
      ValueError: there is no such task, it does not take these arguments, or it cannot
        be made with them.
      ImportError: a package that the task needs is not installed.
    """
    found, written = load(name, TASKS, "`task`")
    for argument in written.keys() & arguments.keys():
        raise ValueError(f"`{argument}` of task {name!r} is given twice")
    arguments = {**written, **arguments}
    if not callable(found):
        for argument in arguments:
            raise ValueError(f"task {name!r} does not take `{argument}`")
        return _checked(name, found)
    check_call(f"task {name!r}", found, arguments)
    try:
        task = found(**arguments)
    except (Exception, SystemExit) as error:
        kind = ImportError if isinstance(error, ImportError) else ValueError
        raise kind(f"cannot make task {name!r}: {cause(error)}") from error
    return _checked(name, task)


def _checked(name: str, task: Any) -> Task:
    if not isinstance(task, Task):
        raise ValueError(f"task {name!r} must be a Task, got {task!r}")
    return task
