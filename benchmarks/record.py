"""Time of a step of Adam with and without `optax_extras.record`.

All variants take turns in one process: in every round, each runs an untimed step and
then ten timed ones, one of which measures with ``every=10``. Parameters and state are
donated. For each variant the program prints

- the median time of a step, and the median over rounds of its ratio to the time of the
  plain step in the same round, with the quartiles;
- the same ratio of CPU time, which other programs on the machine disturb less;
- the bytes per parameter that its kernels move, by XLA's count, which counts a branch
  as if it were always taken; and its temporary bytes.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import optax_extras as ox
from optax_extras import metrics

from measuring import Prepared, leaf, prepare, transformer

RATE = 0.01
STEPS = 10
NORMS = ["grad_norm", "param_norm", "update_norm", "update_ratio"]
METRICS: dict[str, list[Any]] = {
    "grad_norm": ["grad_norm"],
    "grad_norm, param_norm": ["grad_norm", "param_norm"],
    "first_nonfinite": ["first_nonfinite"],
    "update_ratio": ["update_ratio"],
    "all": [*NORMS, "first_nonfinite"],
    "all, and per leaf": [*NORMS, "first_nonfinite", metrics.grad_norm("leaf")],
}
COLUMNS = (
    *("work", "metrics", "every", "ms", "ratio", "quartiles", "ratio of CPU time"),
    *("moved B/param", "temp B/param", "compile s"),
)


def take_turns(methods: Iterable[Prepared], rounds: int) -> None:
    """Times `STEPS` steps of each method in every round, in turn."""
    for _ in range(rounds):
        for method in methods:
            method.step()
            started, cpu = time.perf_counter(), time.process_time()
            for _ in range(STEPS):
                method.step()
            method.times.append((time.perf_counter() - started) / STEPS)
            method.cpu.append((time.process_time() - cpu) / STEPS)


def measure(title: str, tree: Any, rounds: int, intervals: list[int]) -> None:
    """Prints the rows of one workload."""
    adam = optax.adam(RATE)
    prepared = {("none", 0): prepare(adam, tree, jnp.float32)}
    for every in intervals:
        for name, wanted in METRICS.items():
            tx = ox.record(adam, wanted, every=every)
            prepared[name, every] = prepare(tx, tree, jnp.float32)
    take_turns(prepared.values(), rounds)
    plain = prepared["none", 0]
    for (name, every), method in prepared.items():
        ratios = [a / b for a, b in zip(method.times, plain.times, strict=True)]
        first, _, third = statistics.quantiles(ratios, n=4)
        cpu = [a / b for a, b in zip(method.cpu, plain.cpu, strict=True)]
        row = (
            *(title, name, str(every or ""), f"{1000 * method.median:.2f}"),
            f"{statistics.median(ratios):.3f}",
            f"{first:.3f}, {third:.3f}",
            f"{statistics.median(cpu):.3f}",
            f"{method.by_kernels / method.parameters:.0f}",
            f"{method.temporary / method.parameters:.2f}",
            f"{method.compile:.2f}",
        )
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Measures the workloads given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[24])
    parser.add_argument("--layers", type=int, nargs="*", default=[12])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--every", type=int, nargs="*", default=[10, 1])
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    versions = f"jax {jax.__version__}, optax {optax.__version__}"
    print(f"{versions}, {jax.devices()[0]}, {os.cpu_count()} CPUs")
    print(f"load before: {os.getloadavg()[0]:.1f}")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    works = {f"2^{log2}": leaf(log2) for log2 in arguments.sizes}
    for layers in arguments.layers:
        works[f"{12 * layers} leaves"] = transformer(layers, arguments.width)
    for title, tree in works.items():
        measure(title, tree, arguments.rounds, arguments.every)
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
