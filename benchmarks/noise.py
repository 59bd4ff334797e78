"""A noisy SGD step beside optax's, plain SGD's and torch's: time, compilation, memory.

Every work prints one row for each method: seconds to trace and to compile, the median
time of a step with donated buffers, and temporary memory; then each as a ratio to
`optax.noisy_sgd`. Steps of the methods are taken in turn in one process, each behind
an untimed one of its own.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import optax_extras

try:
    import torch
except ImportError:
    torch = None

ETA, GAMMA, RATE = 0.01, 0.55, 0.1
PEER = "optax.noisy_sgd"
METHODS = {
    PEER: lambda: optax.noisy_sgd(RATE, ETA, GAMMA, key=0),
    "optax_extras.noisy_sgd": lambda: optax_extras.noisy_sgd(RATE, ETA, GAMMA, key=0),
    "optax.sgd": lambda: optax.sgd(RATE),
}


@dataclasses.dataclass
class Prepared:
    """A method on a work: a function that does one step, and what it cost to make."""

    step: Callable[[], None]
    trace: float
    compile: float
    temporary: int
    parameters: int
    times: list[float] = dataclasses.field(default_factory=list)


def transformer(layers: int, d: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Twelve leaves a layer: four d×d, one d×4d, one 4d×d and six vectors."""
    shapes = [(d, d)] * 4 + [(d, 4 * d), (4 * d, d)] + [(d,)] * 6
    return {
        f"layer{i}/{j}": jax.ShapeDtypeStruct(shape, jnp.float32)
        for i in range(layers)
        for j, shape in enumerate(shapes)
    }


def leaf(log2: int) -> dict[str, jax.ShapeDtypeStruct]:
    """One leaf of 2**log2 elements, as a matrix of 1024 columns."""
    return {"w": jax.ShapeDtypeStruct((2**log2 // 1024, 1024), jnp.float32)}


def prepare(optimizer: optax.GradientTransformation, tree: Any, dtype: Any) -> Prepared:
    """Compiles a donated step of an optimizer on a tree of shapes."""
    params = jax.tree.map(lambda s: jnp.zeros(s.shape, dtype), tree)
    grads = jax.tree.map(lambda s: jnp.ones(s.shape, dtype), tree)
    carry = [params, optimizer.init(params)]

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    started = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*carry, grads)
    traced = time.perf_counter()
    compiled = lowered.compile()
    finished = time.perf_counter()

    def run() -> None:
        carry[:] = jax.block_until_ready(compiled(*carry, grads))

    return Prepared(
        run,
        traced - started,
        finished - traced,
        compiled.memory_analysis().temp_size_in_bytes,
        sum(p.size for p in jax.tree.leaves(params)),
    )


def prepare_torch(tree: Any, dtype: Any) -> Prepared:
    """The same step in torch: noise from randn_like, then SGD in place."""
    kind = torch.bfloat16 if dtype == jnp.bfloat16 else torch.float32
    params = [torch.zeros(s.shape, dtype=kind) for s in tree.values()]
    grads = [torch.ones(s.shape, dtype=kind) for s in tree.values()]
    steps = [0]

    def run() -> None:
        sigma = (ETA / (1 + steps[0]) ** GAMMA) ** 0.5
        steps[0] += 1
        for param, grad in zip(params, grads, strict=True):
            grad.add_(torch.randn_like(grad), alpha=sigma)
            param.add_(grad, alpha=-RATE)

    return Prepared(run, 0.0, 0.0, 0, sum(p.numel() for p in params))


def measure(title: str, tree: Any, dtype: Any, rounds: int) -> None:
    """Prints the rows of one work."""
    prepared = {}
    for name, make in METHODS.items():
        prepared[name] = prepare(make(), tree, dtype)
    if torch is not None:
        prepared["torch"] = prepare_torch(tree, dtype)
    for _ in range(rounds):
        for method in prepared.values():
            method.step()  # untimed: the caches are the last method's
            started = time.perf_counter()
            method.step()
            method.times.append(time.perf_counter() - started)
    peer = prepared[PEER]
    for name, method in prepared.items():
        run, reference = (statistics.median(m.times) for m in (method, peer))
        compiled = name != "torch"
        cells = [
            f"{1000 * run:.2f} ms",
            f"{run / reference:.3f}",
            f"{method.trace:.2f} s" if compiled else "",
            f"{method.trace / peer.trace:.2f}" if compiled else "",
            f"{method.compile:.2f} s" if compiled else "",
            f"{method.compile / peer.compile:.3f}" if compiled else "",
            f"{method.temporary / method.parameters:.2f}" if compiled else "",
        ]
        print(f"| {title} | {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Runs the works that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[16, 18, 20, 22, 24, 26]
    )
    parser.add_argument("--layers", type=int, nargs="*", default=[12, 34])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0]}")
    columns = ["work", "method", "step", "", "trace", "", "compile", "", "temp B/param"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for dtype in map(jnp.dtype, arguments.dtypes):
        for log2 in arguments.sizes:
            measure(f"2^{log2} {dtype}", leaf(log2), dtype, arguments.rounds)
        for layers in arguments.layers:
            tree = transformer(layers, arguments.width)
            title = f"{12 * layers} leaves {dtype}"
            measure(title, tree, dtype, arguments.rounds)


if __name__ == "__main__":
    main()
