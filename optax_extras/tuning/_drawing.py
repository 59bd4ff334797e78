"""Parts of the pictures, readable on light and dark pages."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
