"""Compilation of a noisy step whose leaves lie on eight devices.

Noise for leaves of one shape is drawn together where tracing tells how they are
sharded: on an explicit mesh, and inside `jax.shard_map`. On a mesh of `AxisType.Auto`,
or without a mesh in a process that has several devices, the compiler alone knows, and
each leaf is drawn by a kernel of its own. The program prints the seconds of tracing and
compilation for each kind of mesh, the milliseconds of compilation for each leaf, and
the collectives in the compiled step. It checks that all kinds give the same bits but
`jax.shard_map`, inside of which a leaf is what one device has.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import optax_extras

from measuring import transformer

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")


def measure(kind: str, layers: int, optimizer: optax.GradientTransformation) -> Any:
    """Prints a row, and returns the parameters after a step."""
    types = AxisType.Explicit if kind == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(types,) * 2)
    specs = {
        name: P("x", "y") if len(s.shape) == 2 else P("x")
        for name, s in transformer(layers, 64).items()
    }

    def place(name: str, shape: jax.ShapeDtypeStruct) -> jax.Array:
        where = None if kind == "no mesh" else NamedSharding(mesh, specs[name])
        return jax.device_put(jnp.ones(shape.shape), where)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = {name: place(name, s) for name, s in transformer(layers, 64).items()}
    state, run = optimizer.init(params), step
    if kind == "shard_map":
        run = jax.shard_map(
            step, mesh=mesh, in_specs=(specs, P(), specs), out_specs=(specs, P())
        )
    with jax.set_mesh(mesh):
        started = time.perf_counter()
        lowered = jax.jit(run).lower(params, state, params)
        traced = time.perf_counter()
        compiled = lowered.compile()
        finished = time.perf_counter()
        result = jax.device_get(compiled(params, state, params)[0])
    found = [one for one in COLLECTIVES if f" {one}" in compiled.as_text()]
    each = 1000 * (finished - traced) / len(params)
    print(
        f"| {kind} | {len(params)} | {traced - started:.2f} | {finished - traced:.2f}"
        f" | {each:.1f} | {', '.join(found) or 'none'} |",
        flush=True,
    )
    return result


def main() -> None:
    """Measures every kind of mesh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, nargs="*", default=[12, 34])
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    print("| mesh | leaves | trace s | compile s | ms per leaf | collectives |")
    print("|---|---|---|---|---|---|")
    for layers in arguments.layers:
        results = [
            measure(kind, layers, optax_extras.noisy_sgd(0.1, key=0))
            for kind in ("auto", "no mesh", "explicit", "shard_map")
        ]
        for other in results[1:3]:
            jax.tree.map(np.testing.assert_array_equal, results[0], other)


if __name__ == "__main__":
    main()
