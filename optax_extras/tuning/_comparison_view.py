"""What the picture of a comparison shows, as lines, axes and texts."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from optax_extras._core.wording import counted
from optax_extras.tuning._drawing import STYLES
from optax_extras.tuning._panel import Line, Window, finite, window
from optax_extras.tuning._result import SweepResult


class Entry(NamedTuple):
    """An optimizer: its name, a note on it, and its lines on the left and the right."""

    name: str
    note: str
    lines: tuple[Line, Line]


class Side(NamedTuple):
    """Vertical axis and texts of the left or the right panels."""

    window: Window
    title: str
    x: str
    y: str


class View(NamedTuple):
    """What the picture shows.

    Attributes:
      entries: the optimizers.
      best: index of the best one, which is a grey line in the panels of the others.
      sides: left and right.
      target: value of a line on the right, or NaN.
      log: whether the abscissa on the right is logarithmic.
      title: title of the picture.
      note: title of the legends.
    """

    entries: list[Entry]
    best: int
    sides: tuple[Side, Side]
    target: float
    log: bool
    title: str
    note: str


def split(count: int) -> list[np.ndarray[Any, Any]]:
    """Indices of the entries in each row of panels, of nearly equal numbers."""
    return np.array_split(np.arange(count), math.ceil(count / len(STYLES)))


def view_of(
    sweeps: Mapping[str, SweepResult],
    hyperparameter: str | None,
    best: int,
    target: float,
    title: str | None,
) -> View:
    """View of sweeps with one goal, seeds and steps.

    Args:
      sweeps: sweeps by the names of their optimizers.
      hyperparameter: abscissa on the left; `Comparison.plot` has the default.
      best: index of the optimizer that does best.
      target: target of the reported metric, or NaN.
      title: title of the picture, or None for the task, steps and seeds.

    Raises:
      ValueError: no sweep has the hyperparameter.
    """
    name = _abscissa(sweeps, hyperparameter)
    results = list(sweeps.values())
    first, goal = results[0], results[0].goal
    alone = all(list(s.hyperparameters) == [name] for s in results)
    grid = np.concatenate([s.hyperparameters.get(name, []) for s in results])
    ends = np.array([grid.min(), grid.max()])
    communicate = all(s.communicates for s in results)
    entries = [
        Entry(k, _note(s, alone), (_choice(s, name, ends), _course(s, communicate)))
        for k, s in sweeps.items()
    ]
    chosen = int(np.argmin([s.scores().min() for s in results]))
    known = [
        (goal.metric, results[chosen]),
        (goal.reported, results[best]),
    ]
    groups = [[entry.lines[i] for entry in entries] for i in range(2)]
    if goal.metric == goal.reported:  # both sides have one axis
        groups = [groups[0] + groups[1]] * 2
    rows = max(map(len, split(len(entries))))
    windows = [
        window(
            lines,
            s.initial(metric),
            s.final(metric)[s.best_row()],
            goal.mode,
            rows,
        )
        for (metric, s), lines in zip(known, groups, strict=True)
    ]
    others = "" if alone else ", each value with the best others"
    those = name if alone else "hyperparameters"
    steps = first.steps[-1]
    return View(
        entries,
        best,
        (
            Side(
                windows[0],
                f"choice of {name} by {goal.metric}{others}",
                name,
                f"{goal.metric} after {steps} steps",
            ),
            Side(
                windows[1],
                f"reported: {goal.reported} with the best {those}",
                "megabytes sent by a worker" if communicate else "step",
                goal.reported,
            ),
        ),
        target,
        communicate,
        _title(first) if title is None else title,
        f"optimizer (best {those}); lines are medians of seeds, bands all seeds,"
        " large marks the best",
    )


def _abscissa(sweeps: Mapping[str, SweepResult], name: str | None) -> str:
    known = list(dict.fromkeys(k for s in sweeps.values() for k in s.hyperparameters))
    if name is None:
        return "learning_rate" if "learning_rate" in known else known[0]
    if name not in known:
        raise ValueError(
            f"`hyperparameter` must be one of {', '.join(known)}, got {name!r}"
        )
    return name


def _title(sweep: SweepResult) -> str:
    steps, seeds = int(sweep.steps[-1]), len(sweep.seeds)
    return f"{sweep.task}: {counted(steps, 'step')}, {counted(seeds, 'seed')}"


def _note(sweep: SweepResult, alone: bool) -> str:
    """Best hyperparameters, with their names if there may be several."""
    if not np.isfinite(sweep.scores().min()):
        return " (diverged)"
    best = sweep.best().items()
    values = [f"{v:.3g}" if alone else f"{k} {v:.3g}" for k, v in best]
    return f" ({', '.join(values)})"


def _choice(sweep: SweepResult, name: str, ends: np.ndarray[Any, Any]) -> Line:
    """Final values of the metric that chooses, over the hyperparameter."""
    values = sweep.final(sweep.goal.metric)
    values = finite(np.where(sweep.diverged(), np.nan, values))
    best = sweep.best_row()
    if name not in sweep.hyperparameters:
        return Line(ends, values[[best, best]])
    rows = sweep.best_rows(name)
    chosen = int(np.flatnonzero(rows == best)[0])
    found = np.isfinite(sweep.scores()[best])
    x = sweep.hyperparameters[name][rows]
    return Line(x, values[rows], chosen if found else None)


def _course(sweep: SweepResult, communicate: bool) -> Line:
    """Reported metric of the best row, over the steps or the megabytes sent."""
    course = sweep.course(sweep.goal.reported)[sweep.best_row()]
    if communicate:  # a logarithmic axis has no place for what comes before it
        sent = sweep.sent_bytes > 0
        return Line(sweep.sent_bytes[sent] / 1e6, finite(course).T[sent])
    return Line(sweep.steps, finite(course).T)
