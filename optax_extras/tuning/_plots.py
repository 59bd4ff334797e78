"""Pictures of sweeps and range tests, readable on light and dark pages."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        bands = [_quantile(values, q)[order] for q in (0, 50, 100)]
        left.plot(x[order], bands[1], marker="o", markersize=3, label="median")
        left.fill_between(x[order], bands[0], bands[2], alpha=0.25, label="all seeds")
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
    _curves(right, result.steps[1:], result.losses[row])
    chosen = ", ".join(f"{k} = {v[row]:.3g}" for k, v in result.hyperparameters.items())
    right.set_title(f"lowest median loss: {chosen}", fontsize="small")
    right.set_xlabel("step")
    right.set_ylabel("mean loss of mini-batches")
    figure.suptitle(f"{result.task}: {len(result.seeds)} seeds", fontsize="medium")
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


def _curves(axes: Any, steps: np.ndarray[Any, Any], losses: Any) -> None:
    finite = np.where(np.isfinite(losses), losses, np.nan)
    bands = [_quantile(finite.T, q) for q in (0, 50, 100)]
    axes.plot(steps, bands[1], label="median")
    axes.fill_between(steps, bands[0], bands[2], alpha=0.25, label="all seeds")
    if np.nanmin(finite, initial=np.inf) > 0:
        axes.set_yscale("log")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def _quantile(values: np.ndarray[Any, Any], percent: float) -> np.ndarray[Any, Any]:
    """Along the last axis, without what is NaN; NaN where nothing else is."""
    empty = np.isnan(values).all(axis=-1, keepdims=True)
    filled = np.where(empty, 0.0, values)
    found: np.ndarray[Any, Any] = np.nanpercentile(filled, percent, axis=-1)
    return np.where(empty[..., 0], np.nan, found)
