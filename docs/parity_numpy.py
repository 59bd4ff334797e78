"""What the papers write about one leaf, in NumPy and float64.

Functions take the gradients of all steps, (steps, *shape), and return the updates, or
directions that no learning rate has multiplied. Hyperparameters may be functions of
the step, from 0.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from parity_steps import GRADIENTS, PARAMS, Path


def at(value: Any, t: int) -> Any:
    """A number, or a schedule at a step."""
    return value(t) if callable(value) else value


def each(leaf: Callable[..., Any], grads: Path = GRADIENTS, **options: Any) -> Path:
    """The updates of all leaves, each for itself."""
    return {name: leaf(g, **options) for name, g in grads.items()}


def whole(leaf: Callable[..., Any], grads: Path = GRADIENTS, **options: Any) -> Path:
    """The updates of all leaves as if they were one."""
    rows = [g.reshape(len(g), -1) for g in grads.values()]
    ends = np.cumsum([row.shape[1] for row in rows])[:-1]
    parts = np.split(leaf(np.concatenate(rows, 1), **options), ends, axis=1)
    named = zip(grads.items(), parts, strict=True)
    return {name: part.reshape(g.shape) for (name, g), part in named}


def descent(directions: Path, rate: Any, decay: float = 0.0) -> Path:
    """Steps along directions, with decoupled weight decay of the parameters."""
    found = {}
    for name, direction in directions.items():
        theta, steps = PARAMS[name], []
        for t, d in enumerate(direction):
            steps.append(-at(rate, t) * (d + decay * theta))
            theta = theta + steps[-1]
        found[name] = np.stack(steps)
    return found


def trace(
    g: Any, *, decay: Any, nesterov: bool = False, corrected: bool = False
) -> Any:
    """The trace m ← γ m + g, or m over that of a constant 1, in units of its limit."""
    m, w, found = np.zeros(g.shape[1:]), 0.0, []
    for t, now in enumerate(g):
        gamma = at(decay, t)
        m, w = gamma * m + now, gamma * w + 1
        out, weight = (now + gamma * m, 1 + gamma * w) if nesterov else (m, w)
        found.append(out / (weight * (1 - gamma)) if corrected else out)
    return np.stack(found)


def velocity(g: Any, *, rate: Any, momentum: Any, nesterov: bool = False) -> Any:
    """The velocity v ← γ v − η g, the rate inside, as Sutskever et al. have it."""
    v, found = np.zeros(g.shape[1:]), []
    for t, now in enumerate(g):
        v = at(momentum, t) * v - at(rate, t) * now
        jump = at(momentum, t) * v - at(rate, t) * now
        found.append(jump if nesterov else v)
    return np.stack(found)


def look_ahead(g: Any, start: Any, *, rate: Any, momentum: Any) -> tuple[Any, Any]:
    """Nesterov's steps, and the points at which gradients are taken."""
    theta, v, steps, points = start, np.zeros_like(start), [], []
    for t, now in enumerate(g):
        points.append(theta - at(momentum, t) * v)
        v = at(momentum, t) * v + at(rate, t) * now
        steps.append(-v)
        theta = theta - v
    return np.stack(steps), np.stack(points)


def qhm(g: Any, *, beta: Any, nu: Any) -> Any:
    """Ma and Yarats: the mean of the gradient and its damped average."""
    m, found = np.zeros(g.shape[1:]), []
    for t, now in enumerate(g):
        m = at(beta, t) * m + (1 - at(beta, t)) * now
        found.append((1 - at(nu, t)) * now + at(nu, t) * m)
    return np.stack(found)


def aggmo(g: Any, *, betas: Iterable[Any]) -> Any:
    """Lucas et al.: the mean of several traces."""
    return np.mean([trace(g, decay=beta) for beta in betas], axis=0)


def restarted(
    g: Any, start: Any, *, rate: float, momenta: Iterable[float]
) -> np.ndarray:
    """Nesterov's two sequences of points, with the momentum of each step."""
    theta = y = start
    found = []
    for now, mu in zip(g, momenta, strict=True):
        ahead = theta - rate * now
        new = ahead + mu * (ahead - y)
        found.append(new - theta)
        theta, y = new, ahead
    return np.stack(found)


def restarts(period: Any, steps: int, *, counts_on: bool = True) -> list[float]:
    """SRSGD's momenta, j / (j + 3), with j from 0 to the period less 1.

    Where the period changes, j counts on, or is the paper's step modulo the period.
    """
    j, found = 0, []
    for t in range(steps):
        place = j if counts_on else t % at(period, t)
        found.append(place / (place + 3))
        j = 0 if j + 1 >= at(period, t) else j + 1
    return found


def adasmooth(
    g: Any,
    *,
    low: float = 0.9,
    high: float = 0.999,
    b2: float = 0.999,
    gamma: float = 0.9,
    eps: float = 1e-8,
    pooled: bool = True,
    relative: bool = False,
    exact: bool = False,
) -> Any:
    """The source's equations; changes are summed over the leaf if `pooled`."""
    pool = (lambda x: np.full(x.shape, x.sum())) if pooled else (lambda x: x)
    m = s = v = np.zeros(g.shape[1:])
    before, left, found = g[0], 1.0, []
    for t, now in enumerate(g, start=1):
        change = pool((now - before) ** 2)
        if relative:
            change = change / pool(now**2 + before**2)
        v = gamma * v + (1 - gamma) * change
        b1 = low + (high - low) / (1 + np.exp(v))
        left = left * b1
        m, s = b1 * m + (1 - b1) * now, b2 * s + (1 - b2) * now**2
        weight = 1 - (left if exact else b1**t)
        found.append(m / weight / (np.sqrt(s / (1 - b2**t)) + eps))
        before = now
    return np.stack(found)


def qhadam(
    g: Any, *, b1: Any, b2: Any, nu1: Any = 1.0, nu2: Any = 1.0, eps: float = 1e-8
) -> Any:
    """QHAdam, which is Adam with ν = 1, with the exact weights of varying decays."""
    m = v = np.zeros(g.shape[1:])
    left1, left2, found = 1.0, 1.0, []
    for t, now in enumerate(g):
        one, two = at(b1, t), at(b2, t)
        left1, left2 = left1 * one, left2 * two
        m, v = one * m + (1 - one) * now, two * v + (1 - two) * now**2
        top = (1 - at(nu1, t)) * now + at(nu1, t) * m / (1 - left1)
        root = np.sqrt((1 - at(nu2, t)) * now**2 + at(nu2, t) * v / (1 - left2))
        found.append(top / (root + eps))
    return np.stack(found)


def adashift(
    g: Any,
    *,
    reduce: Callable[[Any], Any],
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-10,
    window: int = 10,
) -> Any:
    """Zhou et al.: a window of gradients over the size of those that have left it."""
    weights = b1 ** np.arange(window)
    weights /= weights.sum()
    v, found = 0.0, []
    for t in range(len(g)):
        if t < window:
            found.append(np.zeros(g.shape[1:]))
            continue
        m = np.tensordot(weights, g[t - window + 1 : t + 1][::-1], 1)
        v = b2 * v + (1 - b2) * reduce(g[t - window] ** 2)
        found.append(m / (np.sqrt(v / (1 - b2 ** (t - window + 1))) + eps))
    return np.stack(found)


def adai(g: Any, *, b0: float = 0.1, b2: float = 0.99, eps: float = 1e-3) -> Any:
    """Xie et al.: a decay for each element, from its share of the mean square."""
    m = v = np.zeros(g.shape[1:])
    left, found = 1.0, []
    for now in g:
        v = b2 * v + (1 - b2) * now**2
        b1 = np.clip(1 - b0 * v / v.mean(), 0, 1 - eps)
        m, left = b1 * m + (1 - b1) * now, left * b1
        found.append(m / (1 - left))
    return np.stack(found)


def diffgrad(
    g: Any,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    inside: bool = False,
) -> Any:
    """Dubey et al.: Adam with friction; the code has ε before the debiasing."""
    m = v = before = np.zeros(g.shape[1:])
    found = []
    for t, now in enumerate(g, start=1):
        m, v = b1 * m + (1 - b1) * now, b2 * v + (1 - b2) * now**2
        friction = 1 / (1 + np.exp(-np.abs(before - now)))
        rest = np.sqrt(1 - b2**t)
        root = (np.sqrt(v) + eps) / rest if inside else np.sqrt(v) / rest + eps
        found.append(friction * m / (1 - b1**t) / root)
        before = now
    return np.stack(found)


def autoclip(
    g: Any, *, percentile: float, last: int | None = None, eps: float = 0.0
) -> Any:
    """Seetharaman et al.: the norm clipped to a percentile of all so far."""
    norms, found = [], []
    for now in g:
        norms.append(np.linalg.norm(now))
        clip = np.percentile(norms[-(last or 0) :], percentile)
        found.append(now * min(1, clip / (norms[-1] + eps)))
    return np.stack(found)


def zclip(
    g: Any,
    *,
    threshold: float = 2.5,
    decay: float = 0.97,
    warmup: int = 25,
    most: float = np.inf,
    eps: float = 0.0,
) -> Any:
    """Kumar et al.: norms far above their average clipped; the code has `most`, ε."""
    first, mean, square, found = [], 0.0, 0.0, []
    for now in g:
        n = clip = np.linalg.norm(now)
        if len(first) < warmup:
            first.append(n)
            mean, square = np.mean(first), np.var(first)
        else:
            z = (n - mean) / (np.sqrt(square) + 1e-6)
            if z > threshold:
                clip = mean + threshold**2 * np.sqrt(square) / z
            mean = decay * mean + (1 - decay) * clip
            square = decay * square + (1 - decay) * (clip - mean) ** 2
        clip = min(clip, most)
        found.append(now * clip / (n + eps) if clip < n else now)
    return np.stack(found)
