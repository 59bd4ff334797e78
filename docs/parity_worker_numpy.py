"""What papers write about several workers, in NumPy, and how far steps are from it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from parity_steps import Path
from parity_workers import GRADIENTS, PARAMS, RATE, SHAPES, STEPS, N
from parity_wrapped import bf16


def largest(x: Any, density: float) -> Any:
    """The largest magnitudes of an array, all others 0."""
    flat, found = x.reshape(-1), np.zeros(x.size)
    best = np.argsort(-np.abs(flat), kind="stable")[: int(np.ceil(density * x.size))]
    found[best] = flat[best]
    return found.reshape(x.shape)


def with_feedback(density: float, values: Callable[[Any], Any] = bf16) -> Path:
    """Means of the largest elements, the rest of which is added to the next."""
    found = {"b": GRADIENTS["b"].mean(1)}
    for name in ("e", "w"):
        rest, means = np.zeros((N, *SHAPES[name])), []
        for now in GRADIENTS[name]:
            total = rest + now
            sent = np.stack([values(largest(x, density)) for x in total])
            rest = total - sent
            means.append(sent.mean(0))
        found[name] = np.stack(means)
    return found


def dgc(density: float, momentum: float, values: Callable[[Any], Any] = bf16) -> Path:
    """Lin et al.: each worker has a velocity, and starts anew what it has sent."""
    trace, dense = np.zeros(SHAPES["b"]), []
    for now in GRADIENTS["b"].mean(1):
        trace = momentum * trace + now
        dense.append(-RATE * trace)
    found = {"b": np.stack(dense)}
    for name in ("e", "w"):
        u = v = np.zeros((N, *SHAPES[name]), np.float32)
        steps = []
        for now in GRADIENTS[name].astype(np.float32):
            u = np.float32(momentum) * u + now
            v = v + u
            chosen = np.stack([largest(x, density) for x in v])
            sent = values(chosen)
            steps.append(-RATE * sent.mean(0))
            v = (v - sent).astype(np.float32)
            u = np.where(chosen != 0, 0, u).astype(np.float32)
        found[name] = np.stack(steps)
    return found


def power_sgd(start: Any, momentum: float, dtype: Any = np.float64) -> Path:
    """Vogels et al.: one power iteration a step, with feedback and then momentum."""
    q, rest = np.asarray(start, dtype), np.zeros((N, *SHAPES["w"]), dtype)
    means = {name: list(GRADIENTS[name].mean(1)) for name in ("b", "e")}
    means["w"] = []
    for now in GRADIENTS["w"]:
        total = now.astype(dtype) + rest
        p, _ = np.linalg.qr(total.mean(0) @ q)
        q = total.mean(0).T @ p
        means["w"].append(p @ q.T)
        rest = total - means["w"][-1]
    found = {}
    for name, given in means.items():
        trace, steps = np.zeros(SHAPES[name]), []
        for mean in given:
            trace = momentum * trace + mean
            steps.append(-RATE * trace)
        found[name] = np.stack(steps)
    return found


def adamw(theta: Any, g: Any, state: Any, t: int, rate: float) -> tuple[Any, Any]:
    """A step of AdamW with optax's defaults, and a weight decay of 0.01."""
    m, v = 0.9 * state[0] + 0.1 * g, 0.999 * state[1] + 0.001 * g**2
    direction = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return theta - rate * (direction + 0.01 * theta), (m, v)


def sgd(theta: Any, g: Any, state: Any, t: int, rate: float) -> tuple[Any, Any]:
    """A step of SGD."""
    return theta - rate * g, state


def local(
    inner: Callable[..., Any],
    every: int,
    *,
    rate: float,
    outer: tuple[float, float] = (1.0, 0.0),
    weights: Any = None,
    decay: float = 0.0,
    code: Callable[[Any], Any] | None = None,
) -> Path:
    """Workers that train alone, and an outer step of Nesterov's with their mean."""
    share = np.full(N, 1 / N) if weights is None else weights / np.sum(weights)
    found = {}
    for name, grads in GRADIENTS.items():
        reference, trace = PARAMS[name], np.zeros(SHAPES[name])
        theta, rest = np.stack([reference] * N), np.zeros((N, *SHAPES[name]))
        state = (np.zeros_like(theta),) * 2
        path = []
        for t, now in enumerate(grads, start=1):
            theta, state = inner(theta, now, state, t, rate)
            if t % every == 0:
                total = decay * rest + reference - theta
                dense = code is None or name == "b"
                sent = total if dense else np.stack([code(x) for x in total])
                rest = total - sent
                mean = np.tensordot(share, sent, 1)
                trace = outer[1] * trace + mean
                reference = reference - outer[0] * (mean + outer[1] * trace)
                theta = np.stack([reference] * N)
            path.append(theta - PARAMS[name])
        found[name] = np.stack(path)
    return found


def two_levels(x: Any, density: float, chunk: int) -> Any:
    """The largest of each chunk, as signs and the means of two parts of them."""
    flat, found = x.reshape(-1), np.zeros(x.size)
    for first in range(0, x.size, chunk):
        row = flat[first : first + chunk]
        best = np.argsort(-np.abs(row), kind="stable")[: int(np.ceil(density * chunk))]
        size = np.abs(row[best])
        ways = [np.split(size, [i]) for i in range(1, len(size))]
        levels = [np.repeat([p.mean() for p in way], [*map(len, way)]) for way in ways]
        levels.append(np.full(len(size), size.mean()))
        levels = min(levels, key=lambda values: ((size - values) ** 2).sum())
        found[first + best] = bf16(np.sign(row[best]) * levels)
    return found.reshape(x.shape)


def cosines(n: int) -> np.ndarray:
    """The orthonormal transform of n numbers."""
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    rows = np.sqrt(2 / n) * np.cos(np.pi * k * (2 * i + 1) / (2 * n))
    rows[0] /= np.sqrt(2)
    return rows


def blocks(shape: tuple[int, int], chunk: int) -> Iterator[tuple[slice, slice]]:
    """The parts of a matrix that are transformed."""
    for i in range(0, shape[0], chunk):
        for j in range(0, shape[1], chunk):
            yield slice(i, i + chunk), slice(j, j + chunk)


def demo(
    k: int, chunk: int, decay: float, rate: float, values: Callable[[Any], Any] = bf16
) -> Path:
    """Peng et al.: signs of the mean of what each worker takes out of its momentum."""
    found = {}
    for name, grads in GRADIENTS.items():
        shape = (1, *SHAPES[name]) if len(SHAPES[name]) == 1 else SHAPES[name]
        delta, steps = np.zeros((N, *shape)), []
        h, w = min(chunk, shape[0]), min(chunk, shape[1])
        left, right = cosines(h), cosines(w)
        for now in grads.reshape(STEPS, N, *shape):
            delta = decay * delta + rate * now
            mean = np.zeros(shape)
            for rows, columns in blocks(shape, chunk):
                part = delta[:, rows, columns]
                padded = np.zeros((N, h, w))
                padded[:, : part.shape[1], : part.shape[2]] = part
                waves = left @ padded @ right.T
                sent = np.stack([largest(x, min(k, h * w) / (h * w)) for x in waves])
                sent = sent if k >= h * w else values(sent)
                back = left.T @ sent @ right
                inside = slice(part.shape[1]), slice(part.shape[2])
                delta[:, rows, columns] = part - back[:, *inside]
                senders = np.maximum((sent != 0).sum(0), 1)
                total = left.T @ (sent.sum(0) / senders) @ right
                mean[rows, columns] = total[inside]
            steps.append(-rate * np.sign(mean).reshape(SHAPES[name]))
        found[name] = np.stack(steps)
    return found


def others(found: Path, expected: Path) -> float:
    """The share of elements, of all leaves and steps, that differ by more than 1 %."""
    size = sum(x.size for x in expected.values())
    far = sum(
        (np.abs(found[name] - x) > 0.01 * np.abs(x).max()).sum()
        for name, x in expected.items()
    )
    return float(far / size)
