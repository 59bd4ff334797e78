"""What docs/evidence_relatives.py measures of a method, alone and beside its peer."""

import numpy as np
from relatives_methods import TASKS, peer_of
from study import Study, ends, fresh, tuned
from verdicts import HELD, LOST, NO_DIFFERENCE, Outcome, cost, judge

from optax_extras.tasks import Goal

WORDS = {HELD: "better", LOST: "worse", NO_DIFFERENCE: "no difference"}
SPEED = Goal("steps for each factor of ten")


def goal_of(name: str, found: Study) -> Goal:
    """What is compared on a task."""
    return SPEED if TASKS[name].speed else found.task.goal


def scores(name: str, found: Study, method: str) -> np.ndarray:
    """What is compared, for each fresh seed; infinitely bad where it diverged.

    A loss without noise falls exponentially, to values whose ratios say nothing, so
    that its speed is compared: the steps in which it falls by a factor of ten, in the
    mean over the run.
    """
    last = ends(found, method)
    if not TASKS[name].speed:
        return last
    first = fresh(found, method).curves(found.task.goal.reported)[0][:, 0]
    tens = np.log10(first) - np.log10(np.maximum(last, np.finfo(np.float32).tiny))
    return np.where(tens > 0, found.steps / np.maximum(tens, 1e-9), np.inf)


def outcome(name: str, found: Study, method: str, peer: str | None = None) -> Outcome:
    """The verdict on a method beside its peer, or another."""
    pair = (scores(name, found, k) for k in (method, peer or peer_of(found)))
    return judge(*(cost(values, goal_of(name, found)) for values in pair))


def ratios(name: str, found: Study, method: str, middle: float) -> np.ndarray:
    """By what factor each seed is worse than a number."""
    ours = scores(name, found, method)
    return ours / middle if goal_of(name, found).mode == "min" else middle / ours


def ratio(name: str, found: Study, method: str, peer: str) -> float:
    """By what factor the median is worse than that of another method."""
    middle = float(np.median(scores(name, found, peer)))
    return float(np.median(ratios(name, found, method, middle)))


def miss(found: Study, method: str) -> float:
    """By what share the chosen rate is worse in what is reported than the best rate.

    Both are of the seeds for tuning.
    """
    swept = tuned(found, method)
    values = swept.scores(found.task.goal.reported)
    return float(abs(values[swept.best_row()] / np.min(values) - 1))
