"""The learning-rate range test (Smith 2015, arXiv 1506.01186)."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras.tuning._task import Task
from optax_extras.tuning._training import (
    check_loss,
    descend,
    keyed,
    keys_of_seed,
    seeds_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A smoothed loss of so many times the lowest before it has diverged.
DIVERGENCE = 5.0


class Suggestion(NamedTuple):
    """A learning rate for each seed, and what they have in common.

    Attributes:
      rates: shape (S,); NaN where a seed has none.
      median: over the seeds that have one; NaN if none has.
      lowest: of these seeds.
      highest: of these seeds.
    """

    rates: np.ndarray[Any, Any]
    median: float
    lowest: float
    highest: float


@dataclasses.dataclass(frozen=True)
class LRRangeResult:
    """What a learning-rate range test gave, with S seeds and T steps.

    Attributes:
      task: the task's name.
      learning_rates: that of each step, shape (T,).
      seeds: shape (S,).
      losses: of the mini-batches, before each step, shape (S, T).
      smoothing: the decay of the average that ``smoothed`` is.
    """

    task: str
    learning_rates: np.ndarray[Any, Any]
    seeds: np.ndarray[Any, Any]
    losses: np.ndarray[Any, Any]
    smoothing: float

    @property
    def smoothed(self) -> np.ndarray[Any, Any]:
        """The exponential average of the losses, without bias; (S, T)."""
        decay, average, rows = self.smoothing, np.zeros(len(self.seeds)), []
        with np.errstate(invalid="ignore", over="ignore"):
            for t, losses in enumerate(self.losses.T.astype(np.float64)):
                average = decay * average + (1 - decay) * losses
                rows.append(average / (1 - decay ** (t + 1)))
        return np.stack(rows, axis=1)

    @property
    def divergence(self) -> np.ndarray[Any, Any]:
        """The step at which each seed diverged, T where it did not; (S,).

        There the smoothed loss is five times its lowest value before, or not finite.
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
        """The rate at which the smoothed loss falls fastest against log(rate).

        The first smoothing/(1 − smoothing) steps, whose averages are of few losses,
        are left out.
        """
        rates, first = [], round(self.smoothing / (1 - self.smoothing))
        for smoothed, end in zip(self.smoothed, self.divergence, strict=True):
            slopes = np.diff(smoothed[first:end])
            falls = slopes.size and slopes.min() < 0
            found = self.learning_rates[first + slopes.argmin()] if falls else np.nan
            rates.append(found)
        return _suggestion(rates)

    @property
    def tenth_of_divergence(self) -> Suggestion:
        """A tenth of the rate at which the loss diverged; NaN where it did not."""
        beyond = np.append(self.learning_rates, np.nan)
        return _suggestion(beyond[self.divergence] / 10)

    def plot(self) -> "Figure":
        """The losses against the learning rate, with both suggestions.

        Raises:
          ImportError: matplotlib is not installed.
        """
        from optax_extras.tuning import _plots

        return _plots.of_range_test(self)


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
    make_optimizer: Callable[..., optax.GradientTransformation],
    *,
    min_lr: float = 1e-5,
    max_lr: float = 10.0,
    steps: int = 200,
    seeds: int | Sequence[int] = 5,
    smoothing: float = 0.9,
) -> LRRangeResult:
    """Trains once for each seed with a learning rate that grows in equal ratios.

    The loss first stands still, then falls, then diverges; a good constant rate lies
    where it falls. The test is quick and rough: its answer moves with the range, the
    number of steps and the seed, which is why it is repeated over seeds.

    Args:
      task: what to train.
      make_optimizer: called with ``learning_rate``, a traced 0-d array, and with
        ``key`` where it takes one; makes the whole optimizer.
      min_lr: the first rate, above 0.
      max_lr: the last, above ``min_lr``.
      steps: number of updates, at least 2.
      seeds: their number, from 0, or the seeds themselves.
      smoothing: decay of the average of the losses, in [0, 1).

    Returns:
      The losses, and the rates they suggest.

    Raises:
      ValueError: a number is out of its range, there are no seeds, or the loss is not a
        scalar.

    Examples:
      >>> import optax
      >>> from optax_extras.tuning import digits, lr_range_test
      >>> result = lr_range_test(digits(), optax.sgd, max_lr=100.0, seeds=3)
      >>> bool(0.01 < result.steepest.median < 1)
      True
      >>> bool(0.1 < result.tenth_of_divergence.median < 10)
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
    if steps < 2:
        raise ValueError(f"`steps` must be >= 2, got {steps}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"`smoothing` must be in [0, 1), got {smoothing}")
    seed_array = seeds_of(seeds)
    check_loss(task)
    rates = np.geomspace(min_lr, max_lr, steps)

    def trial(seed: jax.Array) -> jax.Array:
        keys = keys_of_seed(seed)
        make = keyed(make_optimizer, keys)

        def step(carry: Any, entry: Any) -> Any:
            rate, *rest = entry
            return descend(task, make(learning_rate=rate), keys, carry, rest)

        params = task.init(keys.init)
        carry = (params, make(learning_rate=jnp.float32(min_lr)).init(params))
        plan = task.batches.plan(keys.batches, jnp.int32(0), steps)
        numbers = jnp.arange(steps, dtype=jnp.int32)
        entries = (jnp.asarray(rates, jnp.float32), numbers, plan)
        losses: jax.Array
        _, losses = jax.lax.scan(step, carry, entries)
        return losses

    losses = jax.jit(jax.vmap(trial))(jnp.asarray(seed_array, jnp.uint32))
    return LRRangeResult(task.name, rates, seed_array, np.asarray(losses), smoothing)
