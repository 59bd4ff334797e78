"""Training runs to compare and tune optimizers on."""

from optax_extras.tuning._batches import (
    Batches as Batches,
    batches_of_step as batches_of_step,
    minibatches as minibatches,
)
from optax_extras.tuning._digits import digits as digits
from optax_extras.tuning._result import SweepResult as SweepResult
from optax_extras.tuning._sweep import sweep as sweep
from optax_extras.tuning._task import Task as Task
from optax_extras.tuning._training import (
    TrainingResult as TrainingResult,
    train as train,
)
