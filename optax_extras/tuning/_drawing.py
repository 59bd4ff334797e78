"""Parts of the pictures: figures, text, styles, medians and bands."""

import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches. A page shows pictures at about this width, so that fonts keep their size.
WIDTH = 8.5

SMALL = 8.5  # points

# Characters beside a panel.
HEIGHT = 36


class Style(NamedTuple):
    """Color, dashes and marker, which differ in greyscale too."""

    color: str
    linestyle: Any
    marker: str


# Colors after Okabe & Ito 2008, "Color Universal Design", jfly.uni-koeln.de/color.
STYLES = (
    Style("#0072B2", "-", "o"),
    Style("#E69F00", (0, (5, 2)), "s"),
    Style("#009E73", (0, (1, 1.2)), "D"),
    Style("#CC79A7", (0, (7, 2, 1.5, 2)), "P"),
    Style("#D55E00", (0, (2.5, 2.5)), "X"),
    Style("#56B4E9", (0, (4, 1.5, 1, 1.5, 1, 1.5)), "*"),
)


def new_figure(width: float, height: float) -> "Figure":
    """Empty figure of a size in inches.

    Raises:
      ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib: pip install 'optax-extras[cli]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def plain(text: str, width: int = 45) -> str:
    """Text in lines of at most so many characters, without markup.

    Dollar signs would start formulas, and labels that start with an underscore would
    be left out of legends.
    """
    lines = "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")
    return f" {lines}" if lines.startswith("_") else lines


def draw_band(
    axes: Any, x: Any, values: Any, band: str | None = None, **line: Any
) -> None:
    """Draws the median along the last axis as a line, and the range as a band.

    Args:
      axes: where to draw.
      x: abscissae, (n,).
      values: numbers, (n, m); NaN is left out.
      band: label of the band.
      **line: properties of the line, `color` among them.
    """
    lowest, median, highest = (nan_percentile(values, q) for q in (0, 50, 100))
    axes.plot(x, median, **line)
    axes.fill_between(
        x, lowest, highest, color=line["color"], alpha=0.15, linewidth=0, label=band
    )


def nan_percentile(values: np.ndarray[Any, Any], q: float) -> np.ndarray[Any, Any]:
    """`np.nanpercentile` along the last axis, without a warning where all are NaN."""
    empty = np.isnan(values).all(axis=-1, keepdims=True)
    filled = np.where(empty, 0.0, values)
    found: np.ndarray[Any, Any] = np.nanpercentile(filled, q, axis=-1)
    return np.where(empty[..., 0], np.nan, found)


def set_scale(axes: Any, which: str, values: np.ndarray[Any, Any]) -> None:
    """Makes axis ``"x"`` or ``"y"`` logarithmic where that fits the values."""
    values = values.astype(np.float64)
    lowest, highest = np.min(values), np.max(values)
    if lowest == highest:
        axes.set(**{f"{which}ticks": [lowest]})
    least = np.min(values[values > 0], initial=np.inf)
    if lowest >= 0 and highest > 10 * least:
        set_ = getattr(axes, f"set_{which}scale")
        set_("log") if lowest > 0 else set_("symlog", linthresh=least)


def add_legend(figure: Any, panels: Any, title: str | None = None) -> None:
    """Puts the labels of some panels below all that a figure shows."""
    entries: list[tuple[Any, str]] = []
    for axes in panels:
        known = {label for _, label in entries}
        some = zip(*axes.get_legend_handles_labels(), strict=True)
        entries += [(handle, label) for handle, label in some if label not in known]
    longest = max(len(line) for _, label in entries for line in label.splitlines())
    figure.legend(
        *zip(*entries, strict=True),
        loc="outside lower center",
        ncols=max(1, min(4, 110 // (longest + 8))),
        fontsize=SMALL,
        title=title,
        title_fontsize=SMALL,
    )
