"""Gradients and schedules of decays, for tests of momentum against oracles."""

import numpy as np

STEPS = 30
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, 5))


def rising(t):
    """A decay that grows."""
    return 0.99 - 0.5 / (1 + t / 5)


def at(value, t):
    """A number, or a schedule at a step."""
    return value(t) if callable(value) else value
