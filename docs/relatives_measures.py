"""What docs/evidence_relatives.py measures of a method, alone and beside its peer."""

from typing import Any

import numpy as np
from relatives_methods import TASKS, peer_of
from study import Study, fresh, tuned
from verdicts import HELD, LOST, NO_DIFFERENCE, Outcome, cost, judge

from optax_extras.tasks import Goal

WORDS = {HELD: "better", LOST: "worse", NO_DIFFERENCE: NO_DIFFERENCE}
SPEED = Goal("steps for each factor of ten")
SHARE_RIGHT, SHARE_WRONG = "accuracy", "error"


def is_accuracy(goal: Goal) -> bool:
    """Whether a goal is an accuracy, which is judged by the error that it leaves."""
    return goal.mode == "max" and goal.reported.endswith(SHARE_RIGHT)


def goal_of(name: str, found: Study) -> Goal:
    """What is compared on a task."""
    goal = found.task.goal
    if TASKS[name].speed:
        return SPEED
    if not is_accuracy(goal):
        return goal
    metrics = (goal.metric, goal.reported)
    chosen, shown = (x.replace(SHARE_RIGHT, SHARE_WRONG) for x in metrics)
    return Goal(chosen, reported=shown)


def values_of(name: str, found: Study, result: Any, row: int = 0) -> np.ndarray:
    """What is compared, for each seed of a sweep at one of its rates.

    It is infinitely bad where a seed diverged. A loss without noise falls
    exponentially, to values whose ratios say nothing, so that its speed is compared:
    the steps in which it falls by a factor of ten, in the mean over the run.
    """
    goal = found.task.goal
    last = result.final(goal.reported)[row]
    worst = np.inf if goal.mode == "min" else -np.inf
    last = np.where(np.isfinite(last), last, worst)
    if is_accuracy(goal):
        return 1 - last
    if not TASKS[name].speed:
        return last
    first = result.curves(goal.reported)[row][:, 0]
    tens = np.log10(first) - np.log10(np.maximum(last, np.finfo(np.float32).tiny))
    return np.where(tens > 0, found.steps / np.maximum(tens, 1e-9), np.inf)


def scores(name: str, found: Study, method: str) -> np.ndarray:
    """What is compared, for each fresh seed."""
    return values_of(name, found, fresh(found, method))


def best_rate(found: Study, method: str) -> float:
    """The rate that was chosen."""
    return float(tuned(found, method).best()["learning_rate"])


def median_at(name: str, found: Study, method: str, rate: float) -> float:
    """The median of what is compared at a rate of the grid, of the seeds for tuning."""
    row = int(np.argmin(np.abs(TASKS[name].grid() / rate - 1)))
    return float(np.median(values_of(name, found, tuned(found, method), row)))


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


def has_miss(name: str, found: Study) -> bool:
    """Whether rates are chosen by another metric than the one that is reported."""
    goal = goal_of(name, found)
    return goal.metric != goal.reported


def miss(name: str, found: Study, method: str) -> float:
    """By what factor, less 1, the chosen rate is worse than the best rate.

    Both are judged by what is reported, on the seeds for tuning.
    """
    goal, swept = goal_of(name, found), tuned(found, method)
    medians = swept.scores(found.task.goal.reported)
    if is_accuracy(found.task.goal):
        medians = 1 + medians
    chosen, best = medians[swept.best_row()], np.min(medians)
    # Where high values are better, scores are negative.
    return float(chosen / best if goal.mode == "min" else best / chosen) - 1
