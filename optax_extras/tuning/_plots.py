"""Pictures of sweeps and range tests, readable on light and dark pages."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from optax_extras.tuning._comparison import Comparison
    from optax_extras.tuning._range_test import LRRangeResult
    from optax_extras.tuning._result import SweepResult


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib: pip install 'optax-extras[cli]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def of_sweep(result: "SweepResult", metric: str, hyperparameter: str) -> "Figure":
    """A metric against a hyperparameter, and the losses of the best trials."""
    x = result.hyperparameters[hyperparameter]
    order = np.argsort(x, kind="stable")
    values = np.where(result.diverged(), np.nan, result.final(metric))
    alone = len(np.unique(x)) == len(x)
    figure = _figure(10, 4)
    left, right = figure.subplots(1, 2)

    if alone:  # a line through one value each; else a cloud
        line = {"marker": "o", "markersize": 3, "label": "median", "color": "C0"}
        _band(left, x[order], values[order], "all seeds", **line)
    else:
        cloud = np.repeat(x, values.shape[1])
        left.plot(cloud, values.ravel(), "o", alpha=0.4, label="each trial")
    gone = result.diverged().mean(axis=1)
    for value, share in zip(x, gone, strict=True):
        if share:
            left.axvline(value, color="tab:red", alpha=0.15 + 0.35 * share, zorder=0)
    if gone.any():
        left.plot([], [], color="tab:red", alpha=0.5, label="seeds diverged")
    if (x > 0).all() and x.max() > 10 * x.min():
        left.set_xscale("log")
    if np.nanmin(values, initial=np.inf) > 0:
        left.set_yscale("log")
    left.set_xlabel(hyperparameter)
    left.set_ylabel(f"{metric} after {result.steps[-1]} steps")
    left.legend(fontsize="small")

    row = result.best_row()
    losses = np.where(np.isfinite(result.losses[row]), result.losses[row], np.nan)
    _band(right, result.steps[1:], losses.T, "all seeds", label="median", color="C0")
    if np.nanmin(losses, initial=np.inf) > 0:
        right.set_yscale("log")
    right.legend(fontsize="small")
    right.grid(alpha=0.3)
    chosen = ", ".join(f"{k} = {v[row]:.3g}" for k, v in result.hyperparameters.items())
    right.set_title(f"best {result.goal.metric}: {chosen}", fontsize="small")
    right.set_xlabel("step")
    right.set_ylabel("mean loss of mini-batches")
    figure.suptitle(f"{result.task}: {len(result.seeds)} seeds", fontsize="medium")
    return figure


def of_comparison(comparison: "Comparison", title: str | None) -> "Figure":
    """The sensitivity of several optimizers to the learning rate, and their curves."""
    figure = _figure(12, 5.5)
    left, right = figure.subplots(1, 2)
    styles = [{"color": f"C{i % 10}", "linestyle": "-"} for i in range(10)]
    styles += [{**style, "linestyle": "--"} for style in styles]
    metric, mode = comparison.goal
    firsts, lasts = [], []
    for i, (name, sweep) in enumerate(comparison.sweeps.items()):
        style = styles[i % len(styles)]
        rates, gone = sweep.hyperparameters["learning_rate"], sweep.diverged()
        order = np.argsort(rates, kind="stable")
        values = np.where(gone, np.nan, sweep.final(metric))
        _band(left, rates[order], values[order], marker="o", markersize=3, **style)
        lost = rates[gone.mean(axis=1) >= 0.5]
        # Each optimizer has a line of its own for its crosses.
        left.plot(
            lost,
            np.full(len(lost), 0.98 - 0.025 * i),
            "x",
            color=style["color"],
            markersize=4,
            transform=left.get_xaxis_transform(),
        )
        rate = sweep.best()["learning_rate"]
        curves = comparison.best_curves(name)
        steps = sweep.steps[-curves.shape[1] :]
        finite = np.where(np.isfinite(curves), curves, np.nan)
        _band(right, steps, finite.T, label=f"{name} ({rate:.2g})", **style)
        firsts.append(_quantile(finite[:, 0], 50))
        lasts.append(_quantile(finite[:, -1], 50))
    worst, best = np.nanmax([-np.inf, *firsts]), np.nanmin([np.inf, *lasts])
    for axes in (left, right):
        # What is much worse than the beginning, or all but 0, would hide the rest.
        if mode == "min" and 0 <= best < worst:
            axes.set_yscale("log")
            axes.set_ylim(max(best / 2, worst * 1e-8), 3 * worst)
        elif mode == "min" and best < worst:
            axes.set_ylim(best - (worst - best) / 10, worst + (worst - best) / 2)
    right.axhline(comparison.target, color="grey", linewidth=1, linestyle=":")
    right.annotate(
        f"target {comparison.target:.3g}",
        (1, comparison.target),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize="small",
        color="grey",
    )
    left.set_xscale("log")
    left.set_xlabel("learning rate (crosses: half of the seeds or more diverged)")
    left.set_ylabel(f"{metric} after {sweep.steps[-1]} steps")
    right.set_xlabel("step")
    right.set_ylabel(f"{metric}, each at its best learning rate")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.legend(
        *right.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(5, len(comparison.sweeps)),
        fontsize="small",
        title="optimizer (best learning rate); lines are medians, bands all seeds",
        title_fontsize="small",
    )
    if title is None:
        title = f"{sweep.task}: {sweep.steps[-1]} steps, {len(sweep.seeds)} seeds"
    figure.suptitle(title, fontsize="medium")
    return figure


def of_range_test(result: "LRRangeResult") -> "Figure":
    """The smoothed loss against the learning rate, and what it suggests."""
    figure = _figure(7, 4.5)
    axes = figure.add_subplot()
    smoothed, ends = result.smoothed, result.divergence
    for i, (losses, end) in enumerate(zip(smoothed, ends, strict=True)):
        label = f"{len(ends)} seeds, until they diverge" if not i else None
        axes.plot(
            result.learning_rates[:end],
            losses[:end],
            color="tab:blue",
            alpha=0.5,
            label=label,
        )
    for name, colour, suggestion in (
        ("steepest descent", "tab:green", result.steepest),
        ("a tenth of divergence", "tab:orange", result.tenth_of_divergence),
    ):
        if np.isfinite(suggestion.median):
            text = f"{name}: {suggestion.median:.2g}"
            axes.axvline(suggestion.median, color=colour, label=text)
            axes.axvspan(
                suggestion.lowest, suggestion.highest, color=colour, alpha=0.15
            )
    axes.set_xscale("log")
    if np.nanmin(result.losses) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel(f"loss, averaged with a decay of {result.smoothing:g}")
    axes.set_title(f"{result.task}: learning-rate range test", fontsize="medium")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return figure


def _band(axes: Any, x: Any, values: Any, band: str | None = None, **line: Any) -> None:
    """The median along the last axis as a line, and the range as a band about it."""
    lowest, median, highest = (_quantile(values, q) for q in (0, 50, 100))
    axes.plot(x, median, **line)
    axes.fill_between(
        x, lowest, highest, color=line["color"], alpha=0.15, linewidth=0, label=band
    )


def _quantile(values: np.ndarray[Any, Any], percent: float) -> np.ndarray[Any, Any]:
    """Along the last axis, without what is NaN; NaN where nothing else is."""
    empty = np.isnan(values).all(axis=-1, keepdims=True)
    filled = np.where(empty, 0.0, values)
    found: np.ndarray[Any, Any] = np.nanpercentile(filled, percent, axis=-1)
    return np.where(empty[..., 0], np.nan, found)
