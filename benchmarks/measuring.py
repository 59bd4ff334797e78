"""Workloads and the timing of optimizer steps that run in turn."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass
class Prepared:
    """A method on a workload: a function that takes one step, and what it costs."""

    step: Callable[[], None]
    trace: float = 0.0  # seconds
    compile: float = 0.0  # seconds
    temporary: int = 0  # bytes
    moved: int = 0  # bytes: gradients read, parameters and state read and written
    by_kernels: float = 0.0  # bytes that the compiled kernels read and write
    parameters: int = 1
    times: list[float] = dataclasses.field(default_factory=list)  # seconds
    cpu: list[float] = dataclasses.field(default_factory=list)  # the same, of all cores

    @property
    def median(self) -> float:
        """Median time of a step in seconds."""
        return statistics.median(self.times)

    @property
    def median_cpu(self) -> float:
        """Median CPU time of a step in seconds."""
        return statistics.median(self.cpu)


def transformer(layers: int, d: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Twelve leaves per layer: four d×d, one d×4d, one 4d×d and six vectors."""
    shapes = [(d, d)] * 4 + [(d, 4 * d), (4 * d, d)] + [(d,)] * 6
    return {
        f"layer{i}/{j}": jax.ShapeDtypeStruct(shape, jnp.float32)
        for i in range(layers)
        for j, shape in enumerate(shapes)
    }


def leaf(log2: int) -> dict[str, jax.ShapeDtypeStruct]:
    """One leaf of 2**log2 elements, a matrix with 1024 columns."""
    return {"w": jax.ShapeDtypeStruct((2**log2 // 1024, 1024), jnp.float32)}


def prepare(optimizer: optax.GradientTransformation, tree: Any, dtype: Any) -> Prepared:
    """Compiles a step of an optimizer, with donated buffers, for a tree of shapes."""
    params = jax.tree.map(lambda s: jnp.zeros(s.shape, dtype), tree)
    grads = jax.tree.map(lambda s: jnp.ones(s.shape, dtype), tree)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return prepare_step(step, params, optimizer.init(params), grads)


def prepare_step(
    step: Callable[..., Any], params: Any, state: Any, grads: Any
) -> Prepared:
    """Compiles a step for these arrays, with donated parameters and state."""
    carry = [params, state]
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
        size(grads) + 2 * size(carry),
        compiled.cost_analysis()["bytes accessed"],
        sum(p.size for p in jax.tree.leaves(params)),
    )


def size(tree: Any) -> int:
    """Bytes of the arrays of a tree."""
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def take_turns(methods: Iterable[Prepared], rounds: int) -> None:
    """Times one step of each method in every round, in turn."""
    for _ in range(rounds):
        for method in methods:
            method.step()  # untimed: the caches hold the previous method's data
            started, cpu = time.perf_counter(), time.process_time()
            method.step()
            method.times.append(time.perf_counter() - started)
            method.cpu.append(time.process_time() - cpu)
