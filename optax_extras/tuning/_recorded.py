"""What `record` keeps in the states of trials."""

from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from optax_extras.communication import PerWorker
from optax_extras.tuning._task_checks import TAKEN
from optax_extras.wrappers._recorded import arrays_by_name, record_states, scalars_of

# Names of columns of a result, beside those of metrics and hyperparameters.
_TAKEN = (*TAKEN, "sent_bytes", "received_bytes")


def arrays_of(state: Any) -> dict[str, Any]:
    """Recorded arrays by name; those of single workers are left out."""

    def is_of_workers(node: Any) -> bool:
        return isinstance(node, PerWorker)

    shared = jax.tree.map(
        lambda node: None if is_of_workers(node) else node, state, is_leaf=is_of_workers
    )
    found = arrays_by_name(node.scalars.values for node in record_states(shared))
    return {name: x for name, x in found.items() if x is not None}


def scalars(arrays: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The scalars of these arrays, with the axes of rows and seeds."""
    return {
        name: values
        for key, array in arrays.items()
        for name, values in scalars_of(key, array)
    }


def check_names(state: Any, metrics: Collection[str], others: Collection[str]) -> None:
    """Checks the names of recorded scalars before anything is trained.

    Args:
      state: of the optimizer, or its shapes and dtypes.
      metrics: names of the task's metrics.
      others: names of hyperparameters.

    Raises:
      ValueError: a name is that of a metric, of a hyperparameter, or of what every
        result has; or two are equal.
    """
    shapes = {name: x.shape for name, x in arrays_of(state).items()}
    zeros = {name: np.broadcast_to(np.int8(0), shape) for name, shape in shapes.items()}
    for name in scalars(zeros):
        for kind, names in (
            ("a metric of the task", metrics),
            ("a hyperparameter", others),
            ("what every result has", _TAKEN),
        ):
            if name in names:
                raise ValueError(
                    f"recorded scalars must have names of their own, got {name!r}, the"
                    f" name of {kind}; a mapping of `metrics` for `record` gives others"
                )
