"""Steps of several workers, on gradients of their own.

Gradients are multiples of 1/64 and decays powers of two, so that single precision adds
them up exactly, and neither a selection nor a rounding depends on the last digit.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, PartitionSpec as P
from parity_steps import Path, gradients

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
