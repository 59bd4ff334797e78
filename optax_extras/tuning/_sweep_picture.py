"""Picture of one sweep: a final metric over hyperparameters, and the best losses."""

from typing import TYPE_CHECKING, Any

import numpy as np

from optax_extras._core.wording import counted
from optax_extras.tuning._drawing import (
    HEIGHT,
    SMALL,
    STYLES,
    WIDTH,
    add_legend,
    new_figure,
    plain,
    set_scale,
)
from optax_extras.tuning._heat_map import draw_map
from optax_extras.tuning._measurements import Measurements
from optax_extras.tuning._panel import Line, Window, finite, window

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_sweep(
    sweep: Measurements,
    metric: str | None,
    hyperparameter: str | tuple[str, str] | None,
) -> "Figure":
    """Draws a sweep; `SweepResult.plot` has the arguments."""
    metric = sweep.goal.metric if metric is None else metric
    names = _axes_of(sweep, hyperparameter)
    rows, line, axis = _final(sweep, metric, names)
    figure = new_figure(WIDTH, 4.2)
    left, right = figure.subplots(1, 2)
    grid = [sweep.hyperparameters[name][rows] for name in names]
    label = plain(f"{metric} after {sweep.steps[-1]} steps", HEIGHT)
    if len(names) == 2:
        bar = draw_map(left, grid[0], grid[1], line, axis)
        bar.set_label(label)
        left.set_ylabel(plain(names[1], HEIGHT))
    else:
        axis.apply(left)
        line = line._replace(x=grid[0])
        axis.draw(left, line, STYLES[0], best="best", label="median", band="all seeds")
        _draw_divergence(left, grid[0], sweep.diverged()[rows].mean(axis=1))
        set_scale(left, "x", grid[0])
        axis.explain(left, [line])
        left.set_ylabel(label)
        left.grid(alpha=0.3)
    left.set_xlabel(plain(names[0]))
    if len(names) < len(sweep.hyperparameters):
        others = [name for name in sweep.hyperparameters if name not in names]
        text = f"each with its best {', '.join(others)}"
        left.set_title(plain(text), fontsize=SMALL)
    _draw_best(sweep, right)
    add_legend(figure, (left, right))
    title = f"{sweep.task}: {counted(len(sweep.seeds), 'seed')}"
    figure.suptitle(plain(title, 95), fontsize="medium")
    return figure


def _axes_of(
    sweep: Measurements, wanted: str | tuple[str, str] | None
) -> tuple[str, ...]:
    """Names of the abscissa and perhaps the ordinate."""
    known = sweep.hyperparameters
    if wanted is None:
        names = sorted(known, key=lambda name: name != "learning_rate")
        varied = [name for name in names if len(np.unique(known[name])) > 1]
        return tuple(varied[:2] or names[:1])
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not (set(names) <= set(known) and len(set(names)) == len(names) in (1, 2)):
        raise ValueError(
            "`hyperparameter` must be one of"
            f" {', '.join(known)}, or two different ones, got {wanted!r}"
        )
    return tuple(names)


def _final(
    sweep: Measurements, metric: str, names: tuple[str, ...]
) -> tuple[np.ndarray[Any, Any], Line, Window]:
    """Rows that are drawn, their final metric, and its axis."""
    rows, best = sweep.best_rows(*names), sweep.best_row()
    values = finite(np.where(sweep.diverged(), np.nan, sweep.final(metric)))
    found = np.isfinite(sweep.scores()[best])
    chosen = int(np.flatnonzero(rows == best)[0]) if found else None
    line = Line(np.arange(len(rows)), values[rows], chosen)
    start, mode = finite(sweep.initial(metric)), sweep.mode_of(metric)
    if mode is None:  # that in which the row that is best by the goal went
        rises = np.median(values[best] - start[best]) > 0
        mode = "max" if rises else "min"
    else:
        best = sweep.best_row(metric)
    return rows, line, window([line], start, values[best], mode)


def _draw_divergence(axes: Any, x: Any, shares: Any) -> None:
    """Red lines where seeds diverged, the stronger the more did."""
    for value, share in zip(x, shares, strict=True):
        if share:
            alpha = 0.15 + 0.35 * share
            axes.axvline(value, color="tab:red", alpha=alpha, zorder=0)
    if shares.any():
        axes.plot([], [], color="tab:red", alpha=0.5, label="some seeds diverged")


def _draw_best(sweep: Measurements, axes: Any) -> None:
    """Losses of the row that is best by the task's goal."""
    losses = sweep.course("loss")[sweep.best_row()]
    line = Line(sweep.steps, finite(losses).T)
    axis = window([line], losses[:, 0], losses[:, -1], "min")
    axis.apply(axes)
    axis.draw(axes, line, STYLES[0], label="median", band="all seeds")
    axis.explain(axes, [line])
    axes.grid(alpha=0.3)
    best = ", ".join(f"{name} = {value:.3g}" for name, value in sweep.best().items())
    if not np.isfinite(sweep.scores().min()):
        best = f"none, as every row diverged; here {best}"
    axes.set_title(plain(f"best {sweep.goal.metric}: {best}"), fontsize=SMALL)
    axes.set_xlabel("step")
    axes.set_ylabel("mean loss of mini-batches")
