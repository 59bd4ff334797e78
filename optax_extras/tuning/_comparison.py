"""`Comparison`: sweeps of several optimizers over the same grid, seeds and steps."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optax_extras.tasks import Goal
from optax_extras.tuning._drawing import draw_band, nan_percentile, new_figure
from optax_extras.tuning._result import SweepResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Share of the way from the first value to the best last one at which the target lies.
TARGET = 0.95


class Summary(NamedTuple):
    """Results of an optimizer with its best hyperparameters.

    Attributes:
      optimizer: name of the optimizer.
      best: hyperparameters with the best median of the goal's metric.
      at_edge: whether one of these is at an end of its range, so that a wider grid may
        hold better ones.
      median: median over seeds of the goal's metric after the last step.
      lowest: lowest value over seeds.
      highest: highest value over seeds.
      metrics: medians over seeds of all metrics after the last step.
      steps_to_target: median over seeds of the first evaluated step at which the target
        is reached; infinite if half of the seeds never reach it.
      diverged: number of trials of the whole grid that diverged.
      trials: number of trials of the whole grid.
      state_bytes_per_parameter: size of the optimizer's state.
    """

    optimizer: str
    best: dict[str, float]
    at_edge: bool
    median: float
    lowest: float
    highest: float
    metrics: dict[str, float]
    steps_to_target: float
    diverged: int
    trials: int
    state_bytes_per_parameter: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of several optimizers by their sweeps of one task.

    Each optimizer is judged at its hyperparameters with the best median. These are
    selected by the same trials that judge them, which flatters all with few seeds.

    Attributes:
      sweeps: sweeps by the names of their optimizers.

    Raises:
      ValueError: there are no sweeps, or they differ in task, goal, number of rows,
        seeds or evaluated steps.

    Examples:
      >>> import optax
      >>> from optax_extras.tuning import Comparison, digits, sweep
      >>> task, grid = digits(), {"learning_rate": [0.001, 0.01, 0.1, 1.0]}
      >>> comparison = Comparison(
      ...     {
      ...         name: sweep(task, make, grid, steps=50, seeds=3)
      ...         for name, make in {"sgd": optax.sgd, "adam": optax.adam}.items()
      ...     }
      ... )
      >>> sgd, adam = comparison.summaries()
      >>> sgd.best["learning_rate"] > adam.best["learning_rate"]
      True
    """

    sweeps: Mapping[str, SweepResult]

    def __post_init__(self) -> None:
        """Checks that the sweeps can be compared."""
        if not self.sweeps:
            raise ValueError("`sweeps` must not be empty, got {}")
        kinds: dict[str, Any] = {
            "task": lambda s: s.task,
            "goal": lambda s: s.goal,
            "number of rows": lambda s: len(s.losses),
            "seeds": lambda s: s.seeds.tolist(),
            "steps": lambda s: s.steps.tolist(),
        }
        (first, one), *others = self.sweeps.items()
        for kind, of in kinds.items():
            for name, other in others:
                if of(other) != of(one):
                    raise ValueError(
                        f"`sweeps` must have one {kind}, got {of(one)} for {first!r}"
                        f" and {of(other)} for {name!r}"
                    )

    @property
    def goal(self) -> Goal:
        """Goal of the task, by which the optimizers are compared."""
        return next(iter(self.sweeps.values())).goal

    @property
    def target(self) -> float:
        """Value at 95 % of the way from the initial to the best final median.

        The medians are those of the goal's metric over seeds. The initial one is that
        of the initial parameters, or of the first mini-batches if the goal is a mean
        of losses. NaN if no optimizer ends with a finite median.
        """
        sign = 1 if self.goal.mode == "min" else -1
        curves = [sign * self.best_curves(name) for name in self.sweeps]
        ends = np.array([curve[:, [0, -1]] for curve in curves])
        medians = np.median(np.where(np.isfinite(ends), ends, np.inf), axis=1)
        first, last = np.median(medians[:, 0]), np.min(medians[:, 1])
        if not np.isfinite([first, last]).all():
            return np.nan
        return float(sign * (first + TARGET * (last - first)))

    def best_curves(self, optimizer: str) -> np.ndarray[Any, Any]:
        """Goal's metric at each evaluation of an optimizer's best row, (S, E)."""
        sweep = self.sweeps[optimizer]
        curves: np.ndarray[Any, Any] = sweep.curves(self.goal.metric)[sweep.best_row()]
        return curves

    def summaries(self) -> list[Summary]:
        """Summary of each optimizer, in the order of `sweeps`."""
        return [self._summary(*item) for item in self.sweeps.items()]

    def _summary(self, name: str, sweep: SweepResult) -> Summary:
        row, curves = sweep.best_row(), self.best_curves(name)
        sign = 1 if self.goal.mode == "min" else -1
        reached = sign * curves <= sign * self.target
        steps = sweep.steps[-curves.shape[1] :].astype(float)
        first = np.where(reached.any(axis=1), steps[reached.argmax(axis=1)], np.inf)
        last = np.where(sweep.diverged()[row], sign * np.inf, curves[:, -1])
        best = sweep.best()
        return Summary(
            optimizer=name,
            best=best,
            at_edge=any(
                best[k] in (v.min(), v.max()) and v.min() < v.max()
                for k, v in sweep.hyperparameters.items()
            ),
            median=float(np.median(last)),
            lowest=float(np.min(last)),
            highest=float(np.max(last)),
            metrics={
                k: float(np.median(v[row, :, -1])) for k, v in sweep.metrics.items()
            },
            steps_to_target=float(np.median(first)),
            diverged=int(sweep.diverged().sum()),
            trials=sweep.diverged().size,
            state_bytes_per_parameter=sweep.state_bytes_per_parameter,
        )

    def plot(self, title: str | None = None) -> "Figure":
        """Draws the sensitivity to the learning rate, and the best curves.

        Left: median and range over seeds of the goal's metric after the last step, with
        crosses where at least half of the seeds diverged. Right: median and range over
        the steps, at each optimizer's best learning rate.

        Args:
          title: by default the task, the number of steps and that of seeds.

        Raises:
          ValueError: the sweeps are not over ``learning_rate`` alone.
          ImportError: matplotlib is not installed.
        """
        for name, sweep in self.sweeps.items():
            if list(sweep.hyperparameters) != ["learning_rate"]:
                raise ValueError(
                    "a plot needs sweeps over `learning_rate` alone, got"
                    f" {', '.join(sweep.hyperparameters)} for {name!r}"
                )
        figure = new_figure(12, 5.5)
        left, right = figure.subplots(1, 2)
        self._draw_sensitivity(left)
        self._draw_curves(right)
        self._set_limits(left, right)
        for axes in (left, right):
            axes.grid(alpha=0.3)
        figure.legend(
            *right.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(5, len(self.sweeps)),
            fontsize="small",
            title="optimizer (best learning rate); lines are medians, bands all seeds",
            title_fontsize="small",
        )
        if title is None:
            sweep = next(iter(self.sweeps.values()))
            title = f"{sweep.task}: {sweep.steps[-1]} steps, {len(sweep.seeds)} seeds"
        figure.suptitle(title, fontsize="medium")
        return figure

    def _draw_sensitivity(self, axes: Any) -> None:
        for i, sweep in enumerate(self.sweeps.values()):
            rates, gone = sweep.hyperparameters["learning_rate"], sweep.diverged()
            order = np.argsort(rates, kind="stable")
            values = np.where(gone, np.nan, sweep.final(self.goal.metric))
            line = {"marker": "o", "markersize": 3, **_style(i)}
            draw_band(axes, rates[order], values[order], **line)
            lost = rates[gone.mean(axis=1) >= 0.5]
            axes.plot(
                lost,
                np.full(len(lost), 0.98 - 0.025 * i),  # one line for each optimizer
                "x",
                color=_style(i)["color"],
                markersize=4,
                transform=axes.get_xaxis_transform(),
            )
        axes.set_xscale("log")
        axes.set_xlabel("learning rate (crosses: half of the seeds or more diverged)")
        axes.set_ylabel(f"{self.goal.metric} after {sweep.steps[-1]} steps")

    def _draw_curves(self, axes: Any) -> None:
        for i, (name, sweep) in enumerate(self.sweeps.items()):
            curves = self._finite_curves(name)
            label = f"{name} ({sweep.best()['learning_rate']:.2g})"
            steps = sweep.steps[-curves.shape[1] :]
            draw_band(axes, steps, curves.T, label=label, **_style(i))
        axes.axhline(self.target, color="grey", linewidth=1, linestyle=":")
        axes.annotate(
            f"target {self.target:.3g}",
            (1, self.target),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize="small",
            color="grey",
        )
        axes.set_xlabel("step")
        axes.set_ylabel(f"{self.goal.metric}, each at its best learning rate")

    def _set_limits(self, *pictures: Any) -> None:
        """Cuts off values far beyond the first and the best medians."""
        medians = np.array(
            [nan_percentile(self._finite_curves(name).T, 50) for name in self.sweeps]
        )
        worst = np.nanmax(medians[:, 0], initial=-np.inf)
        best = np.nanmin(medians[:, -1], initial=np.inf)
        for axes in pictures:
            if self.goal.mode == "min" and 0 <= best < worst:
                axes.set_yscale("log")
                axes.set_ylim(max(best / 2, worst * 1e-8), 3 * worst)
            elif self.goal.mode == "min" and best < worst:
                axes.set_ylim(best - (worst - best) / 10, worst + (worst - best) / 2)

    def _finite_curves(self, optimizer: str) -> np.ndarray[Any, Any]:
        curves = self.best_curves(optimizer)
        return np.where(np.isfinite(curves), curves, np.nan)


def _style(i: int) -> dict[str, Any]:
    """Color and dashes of the i-th optimizer, of twenty kinds."""
    return {"color": f"C{i % 10}", "linestyle": "--" if i // 10 % 2 else "-"}
