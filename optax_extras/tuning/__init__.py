"""Training runs to compare and tune optimizers on."""

from optax_extras.tuning._digits import digits as digits
from optax_extras.tuning._task import Task as Task
from optax_extras.tuning._training import (
    TrainingResult as TrainingResult,
    train as train,
)
