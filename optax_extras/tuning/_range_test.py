"""`lr_range_test`: the learning-rate range test (Smith 2015, arXiv 1506.01186)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras._core import checks
from optax_extras._core.factories import MakeOptimizer, check_factory, keyed
from optax_extras._core.interrupts import interrupts_between_calls
from optax_extras.tasks import Task
from optax_extras.tuning._drawing import new_figure
from optax_extras.tuning._points import PointOf, Points
from optax_extras.tuning._task_checks import check_task
from optax_extras.tuning._trial import descend, keys_of_seed, seeds_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Ratio of a smoothed loss to the lowest before it from which it counts as diverged.
DIVERGENCE = 5.0


class Suggestion(NamedTuple):
    """Suggested learning rates of S seeds.

    Attributes:
      rates: shape (S,); NaN where a seed suggests none.
      median: median of the rates that are not NaN; NaN if there are none.
      lowest: lowest of these rates.
      highest: highest of these rates.
    """

    rates: np.ndarray[Any, Any]
    median: float
    lowest: float
    highest: float


@dataclasses.dataclass(frozen=True)
class LRRangeResult:
    """Measurements of a learning-rate range test with S seeds and T steps.

    Attributes:
      task: name of the task.
      learning_rates: learning rate of each step, shape (T,).
      seeds: shape (S,).
      losses: loss of each mini-batch before its step, shape (S, T).
      smoothing: decay of the average in ``smoothed``.
    """

    task: str
    learning_rates: np.ndarray[Any, Any]
    seeds: np.ndarray[Any, Any]
    losses: np.ndarray[Any, Any]
    smoothing: float

    @property
    def smoothed(self) -> np.ndarray[Any, Any]:
        """Bias-corrected exponential moving average of the losses, (S, T)."""
        decay, average, rows = self.smoothing, np.zeros(len(self.seeds)), []
        with np.errstate(invalid="ignore", over="ignore"):
            for t, losses in enumerate(self.losses.T.astype(np.float64)):
                average = decay * average + (1 - decay) * losses
                rows.append(average / (1 - decay ** (t + 1)))
        return np.stack(rows, axis=1)

    @property
    def divergence(self) -> np.ndarray[Any, Any]:
        """Step at which each seed diverged, or T if it did not, (S,).

        A seed diverges when its smoothed loss exceeds five times the lowest value so
        far, or is not finite.
        """
        smoothed = np.where(np.isfinite(self.smoothed), self.smoothed, np.inf)
        lowest = np.minimum.accumulate(smoothed, axis=1)
        gone = (smoothed > DIVERGENCE * lowest) | ~np.isfinite(smoothed)
        steps: np.ndarray[Any, Any] = np.where(
            gone.any(axis=1), gone.argmax(axis=1), len(self.learning_rates)
        )
        return steps

    @property
    def steepest(self) -> Suggestion:
        """Rate at which the smoothed loss falls fastest against log(rate).

        It is usually too low for a constant rate. The slope is taken over twice the
        smoothing/(1 − smoothing) steps by which the average lags behind, as the slope
        of one step is that of one mini-batch. As many steps are left out at the start,
        where the averages are over few losses.
        """
        rates, lag = [], round(self.smoothing / (1 - self.smoothing))
        window = max(1, 2 * lag)
        for smoothed, end in zip(self.smoothed, self.divergence, strict=True):
            slopes = smoothed[lag + window : end] - smoothed[lag : max(0, end - window)]
            falls = slopes.size and slopes.min() < 0
            found = self.learning_rates[lag + slopes.argmin()] if falls else np.nan
            rates.append(found)
        return _suggestion(rates)

    @property
    def tenth_of_divergence(self) -> Suggestion:
        """A tenth of the rate at which the loss diverged; NaN if it did not.

        It is usually too high for a constant rate.
        """
        beyond = np.append(self.learning_rates, np.nan)
        return _suggestion(beyond[self.divergence] / 10)

    @property
    def between(self) -> Suggestion:
        """Geometric mean of the other two of each seed, the rate to try first."""
        lower, upper = self.steepest.rates, self.tenth_of_divergence.rates
        return _suggestion(np.sqrt(lower * upper))

    def plot(self, title: str | None = None) -> "Figure":
        """Draws the smoothed losses over the learning rate, with the suggestions.

        Args:
          title: by default the task.

        Raises:
          ImportError: matplotlib is not installed.
        """
        figure = new_figure(7, 4.5)
        axes = figure.add_subplot()
        smoothed, ends = self.smoothed, self.divergence
        for i, (losses, end) in enumerate(zip(smoothed, ends, strict=True)):
            label = f"{len(ends)} seeds, until they diverge" if not i else None
            rates = self.learning_rates[:end]
            axes.plot(rates, losses[:end], color="tab:blue", alpha=0.5, label=label)
        for name, color, found in (
            ("steepest descent", "tab:green", self.steepest),
            ("between the two", "tab:red", self.between),
            ("a tenth of divergence", "tab:orange", self.tenth_of_divergence),
        ):
            if np.isfinite(found.median):
                label = f"{name}: {found.median:.2g}"
                axes.axvline(found.median, color=color, label=label)
                axes.axvspan(found.lowest, found.highest, color=color, alpha=0.15)
        axes.set_xscale("log")
        if np.nanmin(self.losses) > 0:
            axes.set_yscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel(f"loss, averaged with a decay of {self.smoothing:g}")
        title = f"{self.task}: learning-rate range test" if title is None else title
        axes.set_title(title, fontsize="medium")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
        return figure


def _suggestion(rates: Any) -> Suggestion:
    rates = np.asarray(rates)
    found = rates[np.isfinite(rates)]
    if not found.size:
        return Suggestion(rates, math.nan, math.nan, math.nan)
    return Suggestion(
        rates, float(np.median(found)), float(found.min()), float(found.max())
    )


def lr_range_test(
    task: Task,
    make_optimizer: MakeOptimizer,
    *,
    min_lr: float = 1e-5,
    max_lr: float = 100.0,
    steps: int = 200,
    seeds: int | Sequence[int] = 5,
    smoothing: float = 0.9,
    gradient_params: PointOf | None = None,
) -> LRRangeResult:
    """Trains each seed once with a learning rate that grows exponentially.

    The loss is flat at first, then falls, then diverges. On digits, digits-softmax and
    breast-cancer with SGD, momentum and Adam, the best of 25 constant rates after 300
    steps lay above the rate of steepest descent in all nine pairs, by up to 85 times,
    and below a tenth of the rate of divergence in eight, by up to 35 times. Their
    geometric mean, ``between``, was within a factor of 4 of it in seven pairs, and 5
    and 10 times too low in two of breast-cancer. Try that first, and sweep over the
    range of the two. Where the loss is mostly noise, as in noisy-quadratic, the
    suggestions are far off and differ between seeds.

    Args:
      task: what to train.
      make_optimizer: factory of the whole optimizer, called with ``learning_rate``, a
        traced 0-d array, and with ``key`` if it has such an argument.
      min_lr: first rate, above 0.
      max_lr: last rate, above ``min_lr``.
      steps: number of updates, at least 2.
      seeds: number of seeds, counted from 0, or the seeds.
      smoothing: decay of the average of the losses, in [0, 1).
      gradient_params: function of the optimizer's state and the parameters that
        computes where gradients are taken. By default these are the look-ahead point of
        `nesterov_lookahead`, found anywhere in the state, and the parameters of all
        other methods.

    Returns:
      The losses and the learning rates that they suggest.

    Raises:
      ValueError: a number is out of range, there are no seeds, a loss, a metric or the
        goal of the task does not fit, or the point is not like the parameters.
      TypeError: ``make_optimizer`` does not take ``learning_rate``, or needs other
        arguments; a function of the task, or of the point, takes other arguments or
        returns another type.

    Examples:
      >>> import optax
      >>> from optax_extras.tuning import digits, lr_range_test
      >>> result = lr_range_test(digits(), optax.sgd, seeds=3)
      >>> lowest, highest = result.steepest.median, result.tenth_of_divergence.median
      >>> bool(0.01 < lowest < result.between.median < highest < 10)
      True

    References:
      Smith 2015, "Cyclical Learning Rates for Training Neural Networks", arXiv
      1506.01186
    """
    if not 0 < min_lr < max_lr < math.inf:
        raise ValueError(
            "`min_lr` and `max_lr` must be finite and above 0, the second the larger,"
            f" got {min_lr} and {max_lr}"
        )
    if checks.positive_integer("steps", steps) < 2:
        raise ValueError(f"`steps` must be >= 2, got {steps}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"`smoothing` must be in [0, 1), got {smoothing}")
    seed_array = seeds_of(seeds)
    check_factory(make_optimizer, ["learning_rate"])
    check_task(task)
    points = Points(gradient_params)
    rates = np.geomspace(min_lr, max_lr, steps)

    def trial(seed: jax.Array) -> jax.Array:
        keys = keys_of_seed(seed)
        make = keyed(make_optimizer, keys.optimizer)

        def step(carry: Any, entry: Any) -> Any:
            rate, *rest = entry
            tx = make(learning_rate=rate)
            return descend(task, tx, keys, points, carry, rest)

        params = task.init(keys.init)
        carry = (params, make(learning_rate=jnp.float32(min_lr)).init(params))
        plan = task.batches.plan(keys.batches, jnp.int32(0), steps)
        numbers = jnp.arange(steps, dtype=jnp.int32)
        entries = (jnp.asarray(rates, jnp.float32), numbers, plan)
        losses: jax.Array
        _, losses = jax.lax.scan(step, carry, entries)
        return losses

    with interrupts_between_calls() as raise_pending:
        losses = jax.jit(jax.vmap(trial))(jnp.asarray(seed_array, jnp.uint32))
        fetched = np.asarray(losses)
        raise_pending()
    return LRRangeResult(task.name, rates, seed_array, fetched, smoothing)
