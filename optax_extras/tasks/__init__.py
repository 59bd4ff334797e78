"""Training tasks: a model, its data, its loss and its metrics."""

from optax_extras.tasks._analytic import (
    jumping_quadratic,
    line,
    noisy_quadratic,
    quadratic,
    rosenbrock,
)
from optax_extras.tasks._batches import (
    Batches,
    batches_of_step,
    federated_minibatches,
    minibatches,
)
from optax_extras.tasks._cart_pole import cart_pole
from optax_extras.tasks._catalogue import TASKS, load_task
from optax_extras.tasks._digits import digits, federated_digits
from optax_extras.tasks._federated import federated_split
from optax_extras.tasks._regression import breast_cancer, diabetes
from optax_extras.tasks._task import Goal, Mode, Task
from optax_extras.tasks._text import characters

__all__ = [
    "TASKS",
    "Batches",
    "Goal",
    "Mode",
    "Task",
    "batches_of_step",
    "breast_cancer",
    "cart_pole",
    "characters",
    "diabetes",
    "digits",
    "federated_digits",
    "federated_minibatches",
    "federated_split",
    "jumping_quadratic",
    "line",
    "load_task",
    "minibatches",
    "noisy_quadratic",
    "quadratic",
    "rosenbrock",
]
