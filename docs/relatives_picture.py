"""The picture of docs/evidence_relatives.py: methods and tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from study import FOLDER

from optax_extras.tuning._drawing import SMALL, STYLES, WIDTH, new_figure

# Factor beyond which a mark says that a seed is further away.
FURTHEST = 20.0
# Ratios of the ends of a scale: too small for a logarithm, and too large for 2 and 5.
NARROW, MANY = 2.5, 50
PER_METHOD, AROUND = 0.24, 1.1  # inches
Ratios = Mapping[str, Mapping[str, np.ndarray]]


def draw_task(
    axes: Any, by_method: Mapping[str, np.ndarray], names: Sequence[str]
) -> None:
    """Draws the median, the middle half and the range of each method, in its row."""
    medians = {k: float(np.median(values)) for k, values in by_method.items()}
    color = STYLES[0].color
    for method, values in by_method.items():
        place = names.index(method)
        shown = np.minimum(values, FURTHEST)
        low, first, middle, third, high = np.quantile(shown, [0, 0.25, 0.5, 0.75, 1])
        axes.plot([low, high], [place] * 2, color=color, linewidth=1)
        axes.plot([first, third], [place] * 2, color=color, linewidth=4, alpha=0.4)
        best = medians[method] == min(medians.values())
        fill = STYLES[4].color if best else color
        if middle < FURTHEST:
            axes.plot([middle], [place], "o", color=fill, markersize=5.5, zorder=3)
        if high == FURTHEST:
            axes.plot([FURTHEST], [place], ">", color=color, markersize=5)


def set_scale(axes: Any) -> None:
    """A logarithmic scale with a few plain numbers."""
    low, high = axes.dataLim.intervalx
    if high < NARROW * low:
        axes.locator_params(axis="x", nbins=4, steps=[1, 2, 5, 10])
    else:
        axes.set_xscale("log")
        subs = (1, 2, 5) if high < MANY * low else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def picture(families: Mapping[str, Ratios]) -> None:
    """Draws the ratios of each family of methods in a row of panels, one for a task."""
    heights = [
        AROUND + PER_METHOD * max(map(len, tasks.values()))
        for tasks in families.values()
    ]
    figure = new_figure(WIDTH, sum(heights))
    parts = figure.subfigures(len(families), 1, height_ratios=heights, squeeze=False)
    for (part,), (title, tasks) in zip(parts, families.items(), strict=True):
        part.suptitle(title, fontsize="medium")
        panels = part.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        names = list(max(tasks.values(), key=len))
        for axes, (name, by_method) in zip(panels, tasks.items(), strict=True):
            draw_task(axes, by_method, names)
            set_scale(axes)
            axes.set_title(name.replace(", ", ",\n"), fontsize=SMALL)
            axes.grid(alpha=0.3)
            axes.tick_params(labelsize=SMALL)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        part.supxlabel("factor to the best median (orange)", fontsize=SMALL)
    path = FOLDER / "images" / "evidence-relatives.png"
    figure.savefig(path, dpi=110)
