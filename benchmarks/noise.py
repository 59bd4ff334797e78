"""Time and memory of noisy steps, compared with optax, with torch, and without noise.

For every workload the program prints one row per method: the median time of a step with
donated buffers, the times to trace and to compile, each with its ratio to the same step
with optax's noise, and temporary memory. The methods alternate in one process, and each
takes an untimed step before its timed one. `--before` measures noise in front of other
optimizers. `--compile` measures how long every optimizer of optax takes to compile in a
small network, with and without noise in front.
"""

import argparse
import itertools
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

import optax_extras
from optax_extras.testing import Spec, StepArguments, aliases_of

from measuring import Prepared, leaf, prepare, size, take_turns, transformer

try:
    import torch
except ImportError:
    torch = None

ETA, GAMMA, RATE = 0.01, 0.55, 0.1
WIDTHS = (32, 64, 64, 10)
Methods = dict[str, optax.GradientTransformation]  # the first is the reference


def noise() -> optax.GradientTransformation:
    """The noise stage that is measured in front of other optimizers."""
    return optax_extras.add_decayed_noise(ETA, GAMMA, key=0)


NOISY_SGD: Methods = {
    "optax.noisy_sgd": optax.noisy_sgd(RATE, ETA, GAMMA, key=0),
    "optax_extras.noisy_sgd": optax_extras.noisy_sgd(RATE, ETA, GAMMA, key=0),
    "optax.sgd": optax.sgd(RATE),
}
FOLLOWERS: Methods = {
    "sgd": optax.sgd(RATE),
    "momentum": optax.sgd(RATE, momentum=0.9),
    "adam": optax.adam(RATE),
    "lamb": optax.lamb(RATE),
    "adafactor": optax.adafactor(RATE),
    "muon": optax.contrib.muon(RATE),
}


def behind_noise(name: str) -> Methods:
    """A follower after optax's noise, after `add_decayed_noise`, and alone."""
    follower = FOLLOWERS[name]
    return {
        f"optax.add_noise, {name}": optax.chain(
            optax.add_noise(ETA, GAMMA, key=0), follower
        ),
        f"add_decayed_noise, {name}": optax.chain(noise(), follower),
        name: follower,
    }


def prepare_noise(tree: Any, dtype: Any) -> Prepared:
    """Compiles noise alone; it writes the noisy gradients into new memory."""
    grads = jax.tree.map(lambda s: jnp.ones(s.shape, dtype), tree)
    tx = noise()
    state = tx.init(grads)
    started = time.perf_counter()
    lowered = jax.jit(tx.update).lower(grads, state)
    traced = time.perf_counter()
    compiled = lowered.compile()
    return Prepared(
        lambda: jax.block_until_ready(compiled(grads, state)),
        traced - started,
        time.perf_counter() - traced,
        compiled.memory_analysis().temp_size_in_bytes,
        2 * size(grads),
        sum(g.size for g in jax.tree.leaves(grads)),
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

    return Prepared(run, parameters=sum(p.numel() for p in params))


def measure(
    title: str, tree: Any, dtype: Any, rounds: int, methods: Methods = NOISY_SGD
) -> None:
    """Prints the rows of one workload."""
    prepared = {name: prepare(tx, tree, dtype) for name, tx in methods.items()}
    if methods is not NOISY_SGD:
        prepared["noise into memory"] = prepare_noise(tree, dtype)
    elif torch is not None:
        prepared["torch"] = prepare_torch(tree, dtype)
    take_turns(prepared.values(), rounds)
    peer = next(iter(prepared.values()))
    for name, method in prepared.items():
        run, reference = method.median, peer.median
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


def seconds_to_compile(spec: Spec, *stages: optax.GradientTransformation) -> float:
    """Seconds to trace and compile a training step of a small network.

    The optimizer is a chain of `stages` and the optimizer of `spec`.
    """
    key = {"key": 0} if "random" in spec.supports else {}
    tx = optax.chain(*stages, spec.make(**spec.hyperparameters, **key))
    params = [
        {"w": jnp.full((n, m), 0.1), "b": jnp.zeros(m)}
        for n, m in itertools.pairwise(WIDTHS)
    ]

    def loss(params: Any) -> jax.Array:
        x = jnp.ones((16, WIDTHS[0]))
        for layer in params:
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        return jnp.sum(x**2)

    def step(params: Any, state: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params)
        extra = {}
        if spec.extra_args is not None:
            zero = jnp.zeros((), jnp.int32)
            known = StepArguments(value, grads, loss, params, jax.random.key(0), zero)
            extra = spec.extra_args(known)
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    started = time.perf_counter()
    jax.jit(step).lower(params, tx.init(params)).compile()
    return time.perf_counter() - started


def compile_everything() -> None:
    """Prints compile times of every optimizer of optax, alone and after noise."""
    print("| optimizer | alone | behind noise |\n|---|---|---|")
    for module in ("optax", "optax.contrib"):
        for spec in aliases_of(module):
            alone, behind = seconds_to_compile(spec), seconds_to_compile(spec, noise())
            print(f"| {spec.name} | {alone:.2f} s | {behind:.2f} s |", flush=True)


def main() -> None:
    """Measures the workloads given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[16, 18, 20, 22, 24, 26]
    )
    parser.add_argument("--layers", type=int, nargs="*", default=[12, 34])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--before", nargs="*", choices=FOLLOWERS, default=[])
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0]}")
    if arguments.compile:
        compile_everything()
        return
    columns = ["work", "method", "step", "", "trace", "", "compile", "", "temp B/param"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    works = {f"2^{log2}": leaf(log2) for log2 in arguments.sizes}
    for layers in arguments.layers:
        works[f"{12 * layers} leaves"] = transformer(layers, arguments.width)
    for dtype in map(jnp.dtype, arguments.dtypes):
        for title, tree in works.items():
            for methods in [behind_noise(name) for name in arguments.before] or [
                NOISY_SGD
            ]:
                measure(f"{title} {dtype}", tree, dtype, arguments.rounds, methods)


if __name__ == "__main__":
    main()
