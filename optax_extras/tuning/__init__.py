"""Training runs to compare and tune optimizers on."""

from optax_extras.tuning._analytic import (
    jumping_quadratic as jumping_quadratic,
    line as line,
    noisy_quadratic as noisy_quadratic,
    quadratic as quadratic,
    rosenbrock as rosenbrock,
)
from optax_extras.tuning._batches import (
    Batches as Batches,
    batches_of_step as batches_of_step,
    minibatches as minibatches,
)
from optax_extras.tuning._catalogue import TASKS as TASKS, load_task as load_task
from optax_extras.tuning._comparison import (
    Comparison as Comparison,
    Summary as Summary,
)
from optax_extras.tuning._digits import digits as digits
from optax_extras.tuning._progress import progress_bar as progress_bar
from optax_extras.tuning._range_test import (
    LRRangeResult as LRRangeResult,
    Suggestion as Suggestion,
    lr_range_test as lr_range_test,
)
from optax_extras.tuning._regression import (
    breast_cancer as breast_cancer,
    diabetes as diabetes,
)
from optax_extras.tuning._result import SweepResult as SweepResult
from optax_extras.tuning._sweep import sweep as sweep
from optax_extras.tuning._task import Goal as Goal, Task as Task
from optax_extras.tuning._text import characters as characters
from optax_extras.tuning._training import (
    TrainingResult as TrainingResult,
    train as train,
)
