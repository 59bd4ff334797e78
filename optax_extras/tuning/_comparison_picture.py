"""Picture of a comparison: panels of at most six optimizers, with common axes."""

from typing import TYPE_CHECKING, Any

import numpy as np

from optax_extras.tuning._comparison_view import Entry, View, split
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_comparison(view: View) -> "Figure":
    """Draws the optimizers in rows of two panels, a legend below each."""
    groups = split(len(view.entries))
    figure = new_figure(WIDTH, 4.6 * len(groups))
    parts = np.ravel(figure.subfigures(len(groups), 1))
    x, sent = (
        np.concatenate([entry.lines[i].x for entry in view.entries]) for i in range(2)
    )
    for group, part in zip(groups, parts, strict=True):
        pair = part.subplots(1, 2)
        set_scale(pair[0], "x", x)
        if view.log:
            pair[1].set(xscale="log", xlim=(sent.min() / 1.4, sent.max() * 1.4))
        for i, (side, axes) in enumerate(zip(view.sides, pair, strict=True)):
            _draw_side(axes, view, group, i)
            axes.set_xlabel(plain(side.x))
            axes.set_ylabel(plain(side.y, HEIGHT))
            axes.set_title(plain(side.title), fontsize=SMALL)
            axes.grid(alpha=0.3)
        add_legend(part, pair, plain(view.note, 100))
    figure.suptitle(plain(view.title, 95), fontsize="medium")
    return figure


def _draw_side(axes: Any, view: View, group: np.ndarray[Any, Any], i: int) -> None:
    window = view.sides[i].window
    window.apply(axes)
    entries = [view.entries[j] for j in group]
    for row, entry in enumerate(entries):
        label = entry.name + entry.note + _equals(view, entries[: row + 1])
        window.draw(axes, entry.lines[i], STYLES[row], row, label=plain(label, 60))
    if view.best not in group:
        best = view.entries[view.best]
        line = best.lines[i]
        label = plain(f"{best.name} (the best)", 60)
        axes.plot(line.x, line.median, color="grey", linewidth=1, label=label)
    if i == 1 and np.isfinite(view.target):
        label = f"target {view.target:.3g}"
        axes.axhline(view.target, color="grey", linestyle=":", label=label)
    window.explain(axes, [entry.lines[i] for entry in entries])


def _equals(view: View, entries: list[Entry]) -> str:
    """Says with which earlier entry the last one coincides."""
    *others, last = entries
    for other in others:
        left, right = (
            side.window.coincide(*lines)
            for side, *lines in zip(view.sides, other.lines, last.lines, strict=True)
        )
        if left or right:
            where = "left" if left else "right"
            where = "" if left and right else f" in the {where} panel"
            return f" ≈ {other.name}{where}"
    return ""
