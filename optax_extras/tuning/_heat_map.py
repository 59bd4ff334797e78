"""Heat maps of a metric over two hyperparameters."""

import math
from typing import Any

import numpy as np

from optax_extras.tuning._drawing import set_scale
from optax_extras.tuning._panel import LOST, Line, Window

# Most labels that fit beside each other, and above each other.
_COLUMNS, _ROWS = 5, 10


def draw_map(axes: Any, x: Any, y: Any, line: Line, axis: Window) -> Any:
    """Draws medians as cells of a grid, or as points where there is no grid.

    Args:
      axes: where to draw.
      x: abscissa of each row, (n,).
      y: ordinate of each row, (n,); no pair of both occurs twice.
      line: values of each row; the emphasised one is marked as the best.
      axis: range of the colors.

    Returns:
      The color bar.
    """
    from matplotlib.colors import LogNorm, Normalize

    norm = (LogNorm if axis.log else Normalize)(axis.low, axis.high)
    median = np.where(line.lost, np.nan, np.clip(line.median, axis.low, axis.high))
    (columns, i), (rows, j) = (np.unique(v, return_inverse=True) for v in (x, y))
    if len(columns) * len(rows) == len(x):
        cells = np.full((len(rows), len(columns)), np.nan)
        cells[j, i] = median
        edges = [np.arange(len(values) + 1) - 0.5 for values in (columns, rows)]
        colors = axes.pcolormesh(*edges, cells, norm=norm, cmap="viridis")
        axes.set_facecolor("lightgrey")
        _label(axes.set_xticks, columns, _COLUMNS)
        _label(axes.set_yticks, rows, _ROWS)
        x, y = i, j
    else:
        colors = axes.scatter(x, y, c=median, norm=norm, cmap="viridis", s=60)
        set_scale(axes, "x", x)
        set_scale(axes, "y", y)
    marks = {"color": "black", "linestyle": ""}
    if line.lost.any():
        axes.plot(x[line.lost], y[line.lost], marker="x", label=LOST, **marks)
    if line.chosen is not None:
        star = {"marker": "*", "markersize": 14, "markerfacecolor": "white"}
        axes.plot(x[line.chosen], y[line.chosen], label="best", **star, **marks)
    below, above = (axis.outside(line)[mark].any() for mark in "v^")
    extend = ("both" if above else "min") if below else ("max" if above else "neither")
    bar = axes.figure.colorbar(colors, ax=axes, extend=extend)
    axis.set_ticks(bar.ax)
    return bar


def _label(set_ticks: Any, values: np.ndarray[Any, Any], most: int) -> None:
    """Labels every cell or every few, with the digits that tell neighbours apart."""
    gaps = np.pad(np.diff(values), 1, constant_values=np.inf)
    room = 0.05 * np.minimum(gaps[1:], gaps[:-1])
    for digits in range(2, 18):
        labels = [f"{value:.{digits}g}" for value in values]
        if (abs(np.array(labels, float) - values) <= room).all():
            break
    some = range(0, len(values), math.ceil(len(values) / most))
    set_ticks(some, [labels[k] for k in some])
