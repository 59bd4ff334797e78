"""Methods of several workers, and what their papers write, in NumPy.

Gradients are multiples of 1/64 and decays powers of two, so that single precision adds
them up exactly, and neither a selection nor a rounding depends on the last digit.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, PartitionSpec as P
from parity_steps import Path, gradients
from parity_wrapped import bf16

import optax_extras as ox

N = 4
AXIS = {"axis_name": "data", "workers": N}
# Dense, and two that are compressed.
SHAPES = {"b": (5,), "e": (1100,), "w": (40, 30)}
RATE = 0.125


def of_workers(seed: int = 1) -> dict[str, np.ndarray]:
    """Gradients of all steps and workers, (steps, N, *shape)."""
    shapes = {name: (N, *shape) for name, shape in SHAPES.items()}
    found = gradients(shapes=shapes, seed=seed)
    return {name: np.round(64 * g) / 64 for name, g in found.items()}


GRADIENTS = of_workers()
PARAMS = {
    name: np.round(64 * np.random.default_rng(2).normal(size=shape)) / 64
    for name, shape in SHAPES.items()
}
STEPS = len(GRADIENTS["b"])


def mesh() -> Mesh:
    """The first devices."""
    devices = jax.devices()[:N]
    if len(devices) < N:
        raise RuntimeError(f"{N} devices are needed: set `jax_num_cpu_devices`")
    return jax.make_mesh((N,), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def together(tx: optax.GradientTransformation) -> Path:
    """Updates of workers that share their parameters."""
    params = {name: jnp.asarray(p, jnp.float32) for name, p in PARAMS.items()}
    group = mesh()
    with jax.set_mesh(group):
        state = tx.init(params)
    specs = ox.worker_specs(state, "data")

    def step(carry: Any, grads: Any) -> Any:
        params, state = carry
        local = jax.tree.map(lambda g: g[0], grads)
        updates, state = tx.update(local, state, params)
        return (optax.apply_updates(params, updates), state), updates

    def run(state: Any, params: Any, grads: Any) -> Any:
        (_, state), updates = jax.lax.scan(step, (params, state), grads)
        return updates, state

    mapped = jax.shard_map(
        run,
        mesh=group,
        in_specs=(specs, P(), P(None, "data")),
        out_specs=(P(), specs),
    )
    given = {name: jnp.asarray(g, jnp.float32) for name, g in GRADIENTS.items()}
    updates, _ = jax.jit(mapped)(state, params, given)
    return {name: np.asarray(u) for name, u in updates.items()}


def apart(tx: optax.GradientTransformation, weights: Any = None) -> Path:
    """Parameters of workers that train alone, (steps, N, *shape), less the first."""
    params = {name: jnp.asarray(p, jnp.float32) for name, p in PARAMS.items()}
    group = mesh()
    with jax.set_mesh(group):
        carry = ox.worker_params(params, "data", workers=N), tx.init(params)
    specs = ox.worker_specs(carry, "data")

    def run(carry: Any, grads: Any, weight: Any) -> Any:
        options = {} if weights is None else {"weight": weight}

        def step(carry: Any, now: Any) -> Any:
            params, state = carry
            updates, state = tx.update(ox.PerWorker(now), state, params, **options)
            params = ox.apply_local_updates(params, updates, state)
            return (params, state), params.value

        return jax.lax.scan(step, carry, grads)[1]

    mapped = jax.shard_map(
        run,
        mesh=group,
        in_specs=(specs, P(None, "data"), P("data")),
        out_specs=P(None, "data"),
    )
    given = {name: jnp.asarray(g, jnp.float32) for name, g in GRADIENTS.items()}
    weight = jnp.ones(N) if weights is None else jnp.asarray(weights, jnp.float32)
    found = jax.jit(mapped)(carry, given, weight)
    return {name: np.asarray(p) - PARAMS[name] for name, p in found.items()}


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
        errors = [
            sum(
                ((part - part.mean()) ** 2).sum()
                for part in np.split(size, [i])
                if part.size
            )
            for i in range(1, len(size) + 1)
        ]
        i = int(np.argmin(errors)) + 1
        parts = np.split(size, [i])
        levels = np.concatenate([np.full(p.size, p.mean()) for p in parts if p.size])
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
                delta[:, rows, columns] = (
                    part - back[:, : part.shape[1], : part.shape[2]]
                )
                senders = np.maximum((sent != 0).sum(0), 1)
                total = left.T @ (sent.sum(0) / senders) @ right
                mean[rows, columns] = total[: part.shape[1], : part.shape[2]]
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
