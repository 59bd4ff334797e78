"""Results of sweeps with given numbers, and one that looks like training."""

import numpy as np

from optax_extras.tuning import Goal, SweepResult

RATES = np.array([0.1, 1.0, 10.0])


def result(metric, grid=None, **changes):
    """A sweep with these values of a metric, by rows, seeds and evaluations."""
    metric = np.asarray(metric, float)
    rows, seeds, evaluations = metric.shape
    fields = {
        "task": "t",
        "goal": Goal("m"),
        "hyperparameters": {"learning_rate": RATES[:rows]} if grid is None else grid,
        "seeds": np.arange(seeds),
        "steps": 10 * np.arange(evaluations),
        "metrics": {"m": metric, "other": 2 * metric},
        "losses": metric[..., 1:],
        "initial_losses": metric[..., 0],
        "compile_seconds": 1.0,
        "run_seconds": 1.8,
        "state_bytes_per_parameter": 4.0,
        "sent_bytes": np.zeros(evaluations, int),
        "received_bytes": np.zeros(evaluations, int),
        "planned": rows,
    }
    return SweepResult(**{**fields, **changes})


def falling(*ends, start=2.0, seeds=2):
    """Metric that falls from a start to one end a row, in four evaluations."""
    rows = np.geomspace(start, ends, 4).T if min(ends) > 0 else None
    rows = np.linspace(start, ends, 4).T if rows is None else rows
    return np.repeat(rows[:, np.newaxis], seeds, axis=1)
