"""Steps of Adam with its state in fewer bytes, and with parameters in bfloat16.

All variants of a workload take turns, with donated parameters and state. With
``--torch PYTHON``, an interpreter that has torch and torchao, their optimizers take
part in a process of their own: one process works at a time. For each variant the
program prints the bytes of its state and of temporaries for each parameter, the median
time of a step, and its ratio to that of the first variant.
"""

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import optax_extras as ox
from optax_extras.codecs import bfloat16, blockwise, float8

from measuring import Prepared, leaf, prepare, take_turns

Methods = dict[str, Callable[[], optax.GradientTransformation]]
RATE = 1e-3
SECOND = blockwise(signed=False)
STATES: dict[str, Any] = {
    "bfloat16, nearest": {"mu|nu": bfloat16(stochastic=False)},
    "bfloat16": {"mu|nu": bfloat16()},
    "8 bits": {"mu": blockwise(), "nu": SECOND},
    "4 and 8 bits": {"mu": blockwise(4), "nu": SECOND},
    "4 bits": {"mu": blockwise(4), "nu": blockwise(4, signed=False)},
    "float8": {"mu|nu": float8()},
}
COLUMNS = ("parameters", "method", "state B", "temporary B", "ms", "ratio")


def compressed(codecs: Any) -> Callable[[], optax.GradientTransformation]:
    """Adam with codecs."""
    return lambda: ox.compress_state(optax.adam(RATE), codecs)


ADAM: Methods = {
    "adam": lambda: optax.adam(RATE),
    **{name: compressed(codecs) for name, codecs in STATES.items()},
}
PARAMETERS: Methods = {
    "adam": lambda: optax.adam(RATE),
    "stochastic": lambda: ox.keep_bfloat16_params(optax.adam(RATE)),
    "kahan": lambda: ox.keep_bfloat16_params(optax.adam(RATE), "kahan"),
    "stochastic, 8 bits": lambda: ox.keep_bfloat16_params(
        compressed(STATES["8 bits"])()
    ),
}
TORCH = ("torch AdamW", "torch AdamW, fused", "torchao AdamW8bit", "torchao AdamW4bit")


class Peer:
    """A process with torch, which takes a step for each line that it reads."""

    def __init__(self, python: str, size: int) -> None:
        """Starts it."""
        script = Path(__file__).with_name("memory_torch.py")
        self._process = subprocess.Popen(
            [python, str(script), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> str:
        """An answer, of one line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def prepare(self, name: str, size: int) -> Prepared | None:
        """An optimizer there, or None if it does not run."""
        started = time.perf_counter()
        if (answer := self.ask(name)) != "ok":
            print(f"{name} does not run: {answer}", flush=True)
            return None
        seconds = time.perf_counter() - started
        return Prepared(lambda: self._step(name), compile=seconds, parameters=size)

    def _step(self, name: str) -> None:
        if (answer := self.ask(name)) != "ok":
            raise RuntimeError(f"{name}: {answer}")


def state_bytes(tx: optax.GradientTransformation, tree: Any, dtype: Any) -> int:
    """Bytes of a state."""
    shapes = jax.tree.map(lambda s: s.update(dtype=dtype), tree)
    state = jax.eval_shape(tx.init, shapes)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def measure(
    title: str,
    tree: Any,
    methods: Methods,
    rounds: int,
    dtype: Any = jnp.float32,
    peer: Peer | None = None,
) -> None:
    """Prints the rows of one workload."""
    prepared = {name: prepare(make(), tree, dtype) for name, make in methods.items()}
    first = next(iter(prepared.values()))
    for name in TORCH if peer else ():
        if made := peer.prepare(name, first.parameters):
            prepared[name] = made
    take_turns(prepared.values(), rounds)
    for name, method in prepared.items():
        memory = "—", "—"
        if name in methods:
            size = state_bytes(methods[name](), tree, dtype)
            memory = tuple(
                f"{x / method.parameters:.2f}" for x in (size, method.temporary)
            )
        ratio = method.median / first.median
        row = title, name, *memory, f"{1000 * method.median:.1f}", f"{ratio:.2f}"
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Measures the workloads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--torch", help="an interpreter with torch and torchao")
    parser.add_argument("--log2", type=int, default=24, help="of the parameters")
    arguments = parser.parse_args()
    tree, rounds = leaf(arguments.log2), arguments.rounds
    size = 2**arguments.log2
    peer = Peer(arguments.torch, size) if arguments.torch else None
    versions = f"jax {jax.__version__}, optax {optax.__version__}"
    print(f"{versions}, {jax.devices()[0]}, {os.cpu_count()} CPUs")
    print(f"load before: {os.getloadavg()[0]:.1f}")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    measure("float32", tree, ADAM, rounds, peer=peer)
    measure("bfloat16", tree, PARAMETERS, rounds, jnp.bfloat16)
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
