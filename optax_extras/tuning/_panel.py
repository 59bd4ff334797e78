"""Panels of lines, cut to the values that matter, with marks of what is outside."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from optax_extras.tasks import Mode
from optax_extras.tuning._drawing import Style, draw_band, nan_percentile

# Share of the height of the axes that one row of marks takes.
_ROW = 0.035

# Reciprocal of the lowest value on a logarithmic axis, in units of the highest.
_DECADES = 1e8

# Ratio of two values from which on an axis is logarithmic.
_LOG = 5.0

# Ratio of the ends of a logarithmic axis up to which powers of ten are too few ticks.
_SHORT = 1e3

# Smallest value that a logarithmic axis is made for.
_TINY = 1e-290

# Distance of lines that coincide, as a share of the height of the axes.
_EQUAL = 0.01

LOST = "half of the seeds or more diverged"
_MEANINGS = {
    "x": LOST,
    "^": "median above the axis",
    "v": "median below the axis",
}


def finite(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values in double precision, with NaN in place of infinities."""
    values = values.astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


class Line(NamedTuple):
    """A line of a panel.

    Attributes:
      x: abscissae, (n,).
      values: one for each seed, NaN where it diverged, (n, S).
      chosen: index of a point to emphasise.
    """

    x: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]
    chosen: int | None = None

    @property
    def median(self) -> np.ndarray[Any, Any]:
        """Median of the seeds that did not diverge, (n,)."""
        return nan_percentile(self.values, 50)

    @property
    def lost(self) -> np.ndarray[Any, Any]:
        """Whether half of the seeds or more diverged, (n,)."""
        lost: np.ndarray[Any, Any] = np.isnan(self.values).mean(axis=1) >= 0.5
        return lost


class Window(NamedTuple):
    """Vertical axis of a panel, with a margin for marks of what is outside.

    Attributes:
      log: whether the axis is logarithmic.
      low: lowest value.
      high: highest value.
      rows: rows of marks below and above these values.
      worse: side of the worse values, 0 for below and 1 for above.
    """

    log: bool
    low: float
    high: float
    rows: tuple[int, int]
    worse: int

    def apply(self, axes: Any) -> None:
        """Sets scale and limits of the axes, and shades the margins."""
        if self.log:
            axes.set_yscale("log")
        self.set_ticks(axes)
        ends = np.array([self.low, self.high])
        low, high = np.log10(ends) if self.log else ends
        below, above = (_ROW * rows for rows in self.rows)
        height = (high - low) / (1 - below - above)
        ends = np.array([low - below * height, high + above * height])
        axes.set_ylim(*(10**ends if self.log else ends))
        for start, stop in ((0, below), (1 - above, 1)):
            if start < stop:
                shade = {"color": "grey", "alpha": 0.15, "linewidth": 0}
                axes.fill_between(
                    [0, 1], start, stop, transform=axes.transAxes, **shade
                )

    def set_ticks(self, axes: Any) -> None:
        """Sets more ticks than the powers of ten on a short logarithmic axis."""
        if not self.log or self.high > _SHORT * self.low:
            return
        ends = math.log10(self.low), math.log10(self.high)
        powers = range(math.floor(ends[0]), math.ceil(ends[1]))
        ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
        ticks = [tick for tick in ticks if self.low <= tick <= self.high]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks([], minor=True)

    def draw(
        self,
        axes: Any,
        line: Line,
        style: Style,
        row: int = 0,
        best: str | None = None,
        **labels: str | None,
    ) -> None:
        """Draws a line, its band, and marks where its median is outside.

        Args:
          axes: where to draw.
          line: what to draw.
          style: color, dashes and markers.
          row: row of the marks, from the end of the axis.
          best: label of the emphasised point.
          **labels: ``label`` of the line and ``band`` of the band.
        """
        color, median = style.color, line.median
        every = max(1, len(line.x) // 8)
        draw_band(
            axes,
            line.x,
            line.values,
            **labels,
            color=color,
            linestyle=style.linestyle,
            marker=style.marker,
            markersize=4,
            # Lines that coincide have their markers at different points.
            markevery=(row * every // 6, every),
        )
        chosen = np.arange(len(line.x)) == line.chosen
        large = {"color": color, "linestyle": "", "markersize": 8}
        axes.plot(
            line.x[chosen], median[chosen], marker=style.marker, label=best, **large
        )
        for mark, where in self.outside(line).items():
            height = _ROW * (row + 0.5)
            upper = mark == "^" or (mark == "x" and self.worse == 1)
            for some, size in ((where & ~chosen, 4), (where & chosen, 8)):
                axes.plot(
                    line.x[some],
                    np.full(some.sum(), 1 - height if upper else height),
                    mark,
                    color=color,
                    markersize=size,
                    transform=axes.get_xaxis_transform(),
                )

    def outside(self, line: Line) -> dict[str, np.ndarray[Any, Any]]:
        """Marks of a line, and where each stands, (n,)."""
        median, lost = line.median, line.lost
        return {
            "x": lost,
            "^": ~lost & (median > self.high),
            "v": ~lost & (median < self.low),
        }

    def coincide(self, one: Line, other: Line) -> bool:
        """Whether the medians of two lines are drawn at nearly the same places."""
        if not np.array_equal(one.x, other.x) or np.isnan(one.median).all():
            return False
        a, b = (np.clip(line.median, self.low, self.high) for line in (one, other))
        low, high = self.low, self.high
        if self.log:
            a, b, low, high = (np.log10(value) for value in (a, b, low, high))
        return np.allclose(a, b, rtol=0, atol=_EQUAL * (high - low), equal_nan=True)

    def explain(self, axes: Any, lines: Sequence[Line]) -> None:
        """Adds the marks of lines to the legend."""
        for mark, meaning in _MEANINGS.items():
            if any(self.outside(line)[mark].any() for line in lines):
                axes.plot([], [], mark, color="grey", markersize=4, label=meaning)


def window(
    lines: Sequence[Line],
    start: np.ndarray[Any, Any],
    best: np.ndarray[Any, Any],
    mode: Mode,
    rows: int = 1,
) -> Window:
    """Axis from a little beyond the start to a little beyond the best values.

    Args:
      lines: all that is drawn.
      start: values before training, of which the median counts.
      best: values that are not cut off, unless a logarithmic axis cannot hold them.
      mode: whether low or high values are better.
      rows: lines of a panel, each of which has its own row of marks.
    """
    drawn = np.concatenate([line.values.ravel() for line in lines])
    drawn = drawn[np.isfinite(drawn)]
    start = nan_percentile(finite(start).ravel(), 50)
    known = np.append(finite(best), start)
    known = known[np.isfinite(known)]
    if not known.size:
        known = drawn if drawn.size else np.zeros(1)
    low, high = float(np.min(known)), float(np.max(known))
    log = bool(mode == "min" and low >= 0 and high > max(_LOG * low, _TINY))
    if log:
        low, high = np.log10([max(low, high / _DECADES), high])
        drawn = np.log10(drawn[drawn > 0])
    margin = np.log10(3) if log else (high - low) / 2 or abs(low) / 2
    inside = drawn[(drawn >= low - margin) & (drawn <= high + margin)]
    if inside.size:
        low, high = float(np.min(inside)), float(np.max(inside))
    if log and high - low < math.log10(_LOG):
        log, low, high = False, 10**low, 10**high
    size = max(abs(low), abs(high))
    pad = 0.04 * (high - low) if high - low > 1e-6 * size else 0.1 * size or 1.0
    low, high = low - pad, high + pad
    ends = (10**low, 10**high) if log else (low, high)
    bare = Window(log, *ends, (0, 0), int(mode == "min"))
    marks = [bare.outside(line) for line in lines]
    sides = ["vx", "^"] if mode == "max" else ["v", "^x"]
    below, above = (
        rows if any(mark[kind].any() for mark in marks for kind in side) else 0
        for side in sides
    )
    return bare._replace(rows=(below, above))
