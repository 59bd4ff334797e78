"""The rule by which docs/evidence.py decides whether a method beat its peer."""

from typing import NamedTuple

import numpy as np

from optax_extras.tasks import Goal

# Smallest difference that counts, as a fraction of the peer's median.
TOLERANCE = 0.01
# Share of the seeds that decides: of 20, 15 are significant at 5 % in a two-sided sign
# test.
SHARE = 0.75

HELD = "**held**"
LOST = "**did not hold: the peer was better**"
NO_DIFFERENCE = "no difference was shown"


class Outcome(NamedTuple):
    """Comparison of a method with its peer, seed by seed.

    Attributes:
      wins: seeds on which the method did better.
      ties: seeds without a difference that counts.
      losses: seeds on which the peer did better.
      verdict: `HELD`, `LOST` or `NO_DIFFERENCE`.
    """

    wins: int
    ties: int
    losses: int
    verdict: str


def cost(values: np.ndarray, goal: Goal) -> np.ndarray:
    """Values of which low ones are better, infinite where they are not finite."""
    signed = values if goal.mode == "min" else -values
    return np.where(np.isfinite(signed), signed, np.inf)


def judge(ours: np.ndarray, peer: np.ndarray, resolution: float = 0.0) -> Outcome:
    """Judges values, of which low ones are better and infinite ones diverged.

    A tie counts as half a win. A verdict needs a difference that counts between the
    medians too: those of most seeds may cancel.

    Args:
      ours: the method's value of each seed.
      peer: the peer's value of each seed.
      resolution: differences up to this size do not count.
    """
    middle = np.median(peer)
    least = max(resolution, TOLERANCE * abs(middle)) if np.isfinite(middle) else 0.0
    wins = int(np.sum(ours < peer - least))
    losses = int(np.sum(peer < ours - least))
    ties = len(ours) - wins - losses
    points, needed = wins + ties / 2, SHARE * len(ours)
    if points >= needed and np.median(ours) < middle - least:
        verdict = HELD
    elif len(ours) - points >= needed and middle < np.median(ours) - least:
        verdict = LOST
    else:
        verdict = NO_DIFFERENCE
    return Outcome(wins, ties, losses, verdict)
