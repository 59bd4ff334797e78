"""Steps with `bucketed`, `skip_spikes` and the clipping of this library, beside peers.

All variants of a workload take turns in one process, with donated parameters and state.
For each variant the program prints the median time of a step, its ratio to that of the
first variant, the time to compile, the number of XLA's fusions, and temporary bytes.
"""

import argparse
import os
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import optax_extras as ox

from measuring import leaf, prepare, take_turns

Methods = dict[str, Callable[[], optax.GradientTransformation]]
RATE = 0.01
MUON: Methods = {
    "muon": lambda: optax.contrib.muon(RATE),
    "bucketed": lambda: ox.bucketed(optax.contrib.muon(RATE)),
}
ADAM: Methods = {
    "adam": lambda: optax.adam(RATE),
    "bucketed": lambda: ox.bucketed(optax.adam(RATE)),
}
GUARDS: Methods = {
    "adam": lambda: optax.adam(RATE),
    "skip_spikes": lambda: ox.skip_spikes(optax.adam(RATE)),
    "optax.apply_if_finite": lambda: optax.apply_if_finite(optax.adam(RATE), 8),
    "clip_by_percentile": lambda: optax.chain(
        ox.clip_by_percentile(), optax.adam(RATE)
    ),
    "clip_by_zscore": lambda: optax.chain(ox.clip_by_zscore(), optax.adam(RATE)),
    "optax.clip_by_global_norm": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(RATE)
    ),
}
COLUMNS = ("work", "method", "ms", "ratio", "compile s", "fusions", "temp B/param")


def matrices(number: int, width: int) -> dict[str, jax.ShapeDtypeStruct]:
    """So many square matrices."""
    one = jax.ShapeDtypeStruct((width, width), jnp.float32)
    return {f"w{i}": one for i in range(number)}


def fusions(tx: optax.GradientTransformation, tree: Any) -> int:
    """How many fusions the compiled update has."""
    state = jax.eval_shape(tx.init, tree)
    compiled = jax.jit(tx.update).lower(tree, state, tree).compile()
    return len(re.findall(r" fusion\(", compiled.as_text() or ""))


def measure(title: str, tree: Any, methods: Methods, rounds: int) -> None:
    """Prints the rows of one workload."""
    prepared = {k: prepare(make(), tree, jnp.float32) for k, make in methods.items()}
    take_turns(prepared.values(), rounds)
    first = next(iter(prepared.values()))
    for name, method in prepared.items():
        row = (
            *(title, name, f"{1000 * method.median:.2f}"),
            f"{method.median / first.median:.2f}",
            f"{method.compile:.2f}",
            f"{fusions(methods[name](), tree)}",
            f"{method.temporary / method.parameters:.1f}",
        )
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Measures the workloads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    versions = f"jax {jax.__version__}, optax {optax.__version__}"
    print(f"{versions}, {jax.devices()[0]}, {os.cpu_count()} CPUs")
    print(f"load before: {os.getloadavg()[0]:.1f}")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    measure("400 of 64×64", matrices(400, 64), MUON, rounds)
    measure("48 of 256×256", matrices(48, 256), MUON, rounds)
    measure("400 of 64×64", matrices(400, 64), ADAM, rounds)
    measure("1000 of 64×64", matrices(1000, 64), ADAM, rounds)
    measure("2^24", leaf(24), GUARDS, rounds)
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
