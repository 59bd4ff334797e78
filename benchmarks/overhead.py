"""Work of compressed means beyond that of a dense one, where the link costs nothing.

The workers are two devices of one process, so that a collective is a copy in memory.
Each step takes the mean of given gradients, and a step of SGD with it.

The first table compares steps on one large leaf. All methods take turns, each with an
untimed step before its timed one. For each method the program prints

- the median time of a step with donated parameters and state, and its ratio to that of
  the dense step;
- the same of the CPU time of all cores, which other processes disturb less;
- temporary memory of each device.

The second table compares the seconds to trace and to compile a step of some methods on
many leaves, with momentum. They take turns, too, after an untimed round.
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec as P

from optax_extras import compressed_mean, compressors, worker_specs

from measuring import Prepared, leaf, prepare_step, take_turns, transformer

AXIS, WORKERS = "data", 2
RATE, MOMENTUM = 0.1, 0.9
DENSE = "dense"
COMPRESSORS = {
    "top-k in chunks of 4096, 0.1 %": compressors.top_k(0.001, chunk=4096),
    "top-k in chunks of 4096, 1 %": compressors.top_k(0.01, chunk=4096),
    "top-k of the leaf, 0.1 %": compressors.top_k(0.001),
    "random k, 1 %": compressors.random_k(0.01, key=0),
    **{f"{bits} bit": compressors.quantized(bits) for bits in (8, 4, 2, 1)},
    **{f"rank {rank}": compressors.low_rank(rank) for rank in (2, 4)},
}
COMPILED = (DENSE, "top-k in chunks of 4096, 0.1 %", "8 bit", "1 bit", "rank 2")
STEP = ("method", "ms", "of dense", "CPU ms", "of dense", "temp B/param")
COMPILATION = ("method", "trace s", "compile s", "of dense", "both s", "of dense")


def gradients(tree: Any) -> Any:
    """Gradients of all workers for a tree of shapes."""
    draw = np.random.default_rng(0)
    values = {
        name: draw.standard_normal((WORKERS, *s.shape), np.float32)
        for name, s in tree.items()
    }
    return jax.device_put(values, NamedSharding(jax.sharding.get_mesh(), P(AXIS)))


def mean(method: str) -> optax.GradientTransformation:
    """The stage that takes the mean."""
    if method != DENSE:
        return compressed_mean(COMPRESSORS[method], AXIS, workers=WORKERS)
    return optax.stateless(lambda updates, params: jax.lax.pmean(updates, AXIS))


def prepare(method: str, tree: Any, grads: Any, momentum: float | None) -> Prepared:
    """Compiles a step of a method."""
    tx = optax.chain(mean(method), optax.sgd(RATE, momentum))

    def step(params: Any, state: Any, grads: Any) -> Any:
        own = jax.tree.map(lambda g: g[0], grads)
        updates, state = tx.update(own, state, params)
        return optax.apply_updates(params, updates), state

    params = {name: jnp.zeros(s.shape, s.dtype) for name, s in tree.items()}
    state = tx.init(params)
    specs = P(), worker_specs(state, AXIS)
    mapped = jax.shard_map(step, in_specs=(*specs, P(AXIS)), out_specs=specs)
    shardings = jax.tree.map(
        lambda spec: NamedSharding(jax.sharding.get_mesh(), spec),
        specs,
        is_leaf=lambda x: isinstance(x, P),
    )
    return prepare_step(mapped, *jax.device_put((params, state), shardings), grads)


def header(title: str, columns: Sequence[str]) -> None:
    """Prints the start of a table."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def measure_steps(names: Sequence[str], tree: Any, rounds: int) -> None:
    """Prints the times of a step."""
    grads = gradients(tree)
    prepared = {name: prepare(name, tree, grads, momentum=None) for name in names}
    take_turns(prepared.values(), rounds)
    header(f"{prepared[DENSE].parameters} parameters", STEP)
    wall, cpu = prepared[DENSE].median, prepared[DENSE].median_cpu
    for name, one in prepared.items():
        print(
            f"| {name} | {1000 * one.median:.0f} | {one.median / wall:.2f}"
            f" | {1000 * one.median_cpu:.0f} | {one.median_cpu / cpu:.2f}"
            f" | {one.temporary / one.parameters:.1f} |"
        )


def measure_compilation(names: Sequence[str], tree: Any, rounds: int) -> None:
    """Prints the times to make a step."""
    grads = gradients(tree)
    found: dict[str, list[Any]] = {name: [] for name in names}
    for _ in range(rounds + 1):  # the first one fills the caches of JAX
        for name, times in found.items():
            one = prepare(name, tree, grads, momentum=MOMENTUM)
            times.append((one.trace, one.compile, one.trace + one.compile))
    header(f"{len(tree)} leaves", COMPILATION)
    medians = {
        name: [statistics.median(each) for each in zip(*times[1:], strict=True)]
        for name, times in found.items()
    }
    _, compiling, both = medians[DENSE]
    for name, row in medians.items():
        print(
            f"| {name} | {row[0]:.2f} | {row[1]:.2f} | {row[1] / compiling:.2f}"
            f" | {row[2]:.2f} | {row[2] / both:.2f} |"
        )


def main() -> None:
    """Measures the leaf and the tree given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=24)
    parser.add_argument("--layers", type=int, default=34)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=11, help="of steps")
    parser.add_argument("--compilations", type=int, default=2, help="rounds of them")
    parser.add_argument("--only", nargs="*", default=[""], help="starts of methods")
    arguments = parser.parse_args()
    names = [name for name in COMPRESSORS if name.startswith(tuple(arguments.only))]
    names = [DENSE, *names]
    jax.config.update("jax_num_cpu_devices", WORKERS)
    print(f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()}")
    with jax.set_mesh(jax.make_mesh((WORKERS,), (AXIS,))):
        if arguments.rounds:
            measure_steps(names, leaf(arguments.size), arguments.rounds)
        if arguments.compilations:
            tree = transformer(arguments.layers, arguments.width)
            some = [name for name in names if name in COMPILED]
            measure_compilation(some, tree, arguments.compilations)


if __name__ == "__main__":
    main()
