"""Time and memory of a step of every optimizer of the library, beside its peers.

The optimizers are found through the public API, with their defaults, and some with
options. All methods take turns in one process, each with an untimed step before its
timed one. For each method the program prints

- the median time of a step with donated parameters and state;
- the bytes per parameter that a step must move: it reads each gradient, and reads and
  writes each parameter and each buffer of the state once; and those that its kernels
  move, by XLA's count;
- the share of the floor: the least time divided by that of the step. The least time is
  that of moving these bytes as fast as `optax.sgd` with momentum moves its own, and
  for each draw of noise the time of writing noise to a buffer beyond that of the bytes;
- the ratios of its time to those of its peers in optax and in torch;
- seconds to trace and to compile, and temporary memory.
"""

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import gaussian
from optax_extras.testing import aliases_of

from measuring import Prepared, leaf, prepare, size, take_turns, transformer

try:
    import torch
except ImportError:
    torch = None

RATE = 0.01
FLOOR, DRAW = "optax.sgd, momentum 0.9", "draw into a buffer"
REFERENCES: dict[str, optax.GradientTransformation] = {
    FLOOR: optax.sgd(RATE, momentum=0.9),
    "optax.sgd, Nesterov": optax.sgd(RATE, momentum=0.9, nesterov=True),
    "optax.adam": optax.adam(RATE),
    "optax.noisy_sgd": optax.noisy_sgd(RATE, 0.01, 0.55, key=0),
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "adashift": [{"spatial": "element"}, {"accumulator_dtype": "bfloat16"}],
    "adasmooth": [
        {"scope": "leaf"},
        {"scope": "element"},
        {"normalize": True, "debias": "product"},
    ],
    "momentum_sgd": [
        {"nesterov": True},
        {"bias_correction": True},
        {"nesterov": True, "bias_correction": True},
        {"learning_rate_inside": False},
    ],
    "noisy_sgd": [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
}
# The nearest method of optax and of torch, by the start of a row's name.
PEERS = {
    "adashift": ("optax.adam", "torch Adam, fused"),
    "adasmooth": ("optax.adam", "torch Adam, fused"),
    "diffgrad": ("optax.adam", "torch Adam, fused"),
    "momentum_sgd": (FLOOR, "torch SGD, fused"),
    "momentum_sgd, nesterov": ("optax.sgd, Nesterov", "torch SGD, Nesterov, fused"),
    "nesterov_lookahead": ("optax.sgd, Nesterov", "torch SGD, Nesterov, fused"),
    "qhadam": ("optax.adam", "torch Adam, fused"),
    "qhm": ("optax.sgd, Nesterov", "torch SGD, Nesterov, fused"),
    "srsgd": ("optax.sgd, Nesterov", "torch SGD, Nesterov, fused"),
    "noisy_sgd": ("optax.noisy_sgd", ""),
    "anti_pgd": ("optax.noisy_sgd", ""),
    "sgld": ("optax.noisy_sgd", ""),
    "psgld": ("optax.noisy_sgd", ""),
}
DRAWN_TWICE = ("anti_pgd",)
COLUMNS = (
    *("work", "method", "ms", "B/param", "moved", "of the floor"),
    *("of optax's", "of torch's", "trace s", "compile s", "temp B/param"),
)


def methods(only: str) -> tuple[dict[str, optax.GradientTransformation], set[str]]:
    """Aliases of the library, some with options, and the names of those that draw."""
    found, drawing = {}, set()
    for spec in aliases_of("optax_extras"):
        key = {"key": 0} if "random" in spec.supports else {}
        values = {**spec.hyperparameters, "learning_rate": RATE, **key}
        for options in ({}, *OPTIONS.get(spec.name, ())):
            name = ", ".join([spec.name, *(f"{k} {v}" for k, v in options.items())])
            if name.startswith(only):
                found[name] = spec.make(**{**values, **options})
                drawing |= {name} if key else set()
    return found, drawing


def prepare_draw(tree: Any) -> Prepared:
    """Noise for a tree, written into buffers that are donated."""
    carry = [jax.tree.map(lambda s: jnp.zeros(s.shape), tree)]
    words, zero = jnp.zeros(2, jnp.uint32), jnp.int32(0)

    def draw(words: jax.Array, step: jax.Array, buffers: Any) -> Any:
        return gaussian.gaussian_like(words, step, buffers, stream="benchmark")

    # XLA drops a buffer that is not used, and with it its donation.
    compiled = jax.jit(draw, donate_argnums=2, keep_unused=True)

    def run() -> None:
        carry[0] = jax.block_until_ready(compiled(words, zero, carry[0]))

    return Prepared(run, moved=size(carry), parameters=size(carry) // 4)


def torch_methods(tree: Any, dtype: Any) -> dict[str, Prepared]:
    """Steps of torch's optimizers, with all tensors of the tree in one call."""
    if torch is None:
        return {}
    kind = torch.bfloat16 if dtype == jnp.bfloat16 else torch.float32
    sgd = functools.partial(torch.optim.SGD, lr=RATE, momentum=0.9)
    factories = {
        "torch SGD": sgd,
        "torch SGD, Nesterov": functools.partial(sgd, nesterov=True),
        "torch Adam": functools.partial(torch.optim.Adam, lr=RATE),
    }
    found = {}
    for name, factory in factories.items():
        for how in ("foreach", "fused"):
            params = [torch.zeros(s.shape, dtype=kind) for s in tree.values()]
            for p in params:
                p.grad = torch.ones_like(p)
            found[f"{name}, {how}"] = Prepared(factory(params, **{how: True}).step)
    return found


def peers_of(name: str) -> tuple[str, str]:
    """Names of the peers in optax and torch; the longest match counts."""
    matches = [start for start in PEERS if name.startswith(start)]
    return PEERS[max(matches, key=len)] if matches else (FLOOR, "")


def measure(title: str, tree: Any, dtype: Any, rounds: int, only: str) -> None:
    """Prints the rows of one workload."""
    ours, drawing = methods(only)
    prepared = {
        name: prepare(tx, tree, dtype) for name, tx in {**REFERENCES, **ours}.items()
    }
    prepared |= {DRAW: prepare_draw(tree), **torch_methods(tree, dtype)}
    take_turns(prepared.values(), rounds)
    second_per_byte = prepared[FLOOR].median / prepared[FLOOR].moved
    draw = prepared[DRAW].median - prepared[DRAW].moved * second_per_byte
    for name, method in prepared.items():
        row = dict.fromkeys(COLUMNS, "")
        row |= {"work": title, "method": name, "ms": f"{1000 * method.median:.2f}"}
        if method.moved:
            row["B/param"] = f"{method.moved / method.parameters:.0f}"
        if method.by_kernels:
            row["moved"] = f"{method.by_kernels / method.parameters:.0f}"
        if method.compile:
            row["trace s"] = f"{method.trace:.2f}"
            row["compile s"] = f"{method.compile:.2f}"
            row["temp B/param"] = f"{method.temporary / method.parameters:.2f}"
        if name in ours:
            draws = (1 + name.startswith(DRAWN_TWICE)) * (name in drawing)
            least = method.moved * second_per_byte + draws * draw
            row["of the floor"] = f"{least / method.median:.2f}"
            peers = zip(("of optax's", "of torch's"), peers_of(name), strict=True)
            for column, peer in peers:
                if peer in prepared:
                    ratio = method.median / prepared[peer].median
                    row[column] = f"{ratio:.2f}"
        print(f"| {' | '.join(row.values())} |", flush=True)


def main() -> None:
    """Measures the workloads given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[24])
    parser.add_argument("--layers", type=int, nargs="*", default=[12, 34])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", default="", help="start of the methods' names")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0]}")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    works = {f"2^{log2}": leaf(log2) for log2 in arguments.sizes}
    for layers in arguments.layers:
        works[f"{12 * layers} leaves"] = transformer(layers, arguments.width)
    for dtype in map(jnp.dtype, arguments.dtypes):
        for title, tree in works.items():
            measure(f"{title} {dtype}", tree, dtype, arguments.rounds, arguments.only)


if __name__ == "__main__":
    main()
