"""Compares a sweep with common ways to write a loop over trials.

All methods train 64 learning rates × 4 seeds × 500 steps and evaluate every 50 steps.
Times include compilation. The methods alternate, each in a new process; peak memory is
the increase of that process's peak during the measurement.
"""

import argparse
import json
import operator
import os
import resource
import statistics
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras.tasks import TASKS, load_task
from optax_extras.tuning import sweep

STEPS, EVERY = 500, 50
RATES = np.geomspace(1e-3, 10, 64)
SEEDS = range(4)


def run(task, optimizer, learning_rate, seed):
    """One trial, written by hand; returns the metrics of every evaluation."""
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    tx = optimizer(learning_rate)
    params = task.init(init_key)

    def step(carry, entry):
        params, state = carry
        batch = task.batches.take(entry)
        grads = jax.grad(task.loss)(params, batch, batch_key)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    def segment(carry, first):
        plan = task.batches.plan(batch_key, first, EVERY)
        carry, _ = jax.lax.scan(step, carry, plan)
        return carry, task.evaluate(carry[0])

    starts = jnp.arange(0, STEPS, EVERY, dtype=jnp.int32)
    return jax.lax.scan(segment, (params, tx.init(params)), starts)[1]


def one_sweep(task, optimizer, trials, mesh=None):
    """Sweep of all trials as one program."""
    result = sweep(
        task,
        optimizer,
        {"learning_rate": RATES},
        steps=STEPS,
        seeds=SEEDS,
        eval_every=EVERY,
        mesh=mesh,
    )
    return next(iter(result.metrics.values()))[..., -1].ravel()


def sweep_over_cores(task, optimizer, trials):
    """All trials as one program, with every core as a device."""
    return one_sweep(task, optimizer, trials, jax.make_mesh((os.cpu_count(),), ("x",)))


def last(metrics):
    """The first metric after the last step, as a float; blocks until it is ready."""
    return float(next(iter(metrics.values()))[-1])


def compiled_once(task, optimizer, trials):
    """One compiled program, whose arguments are the learning rate and the seed."""
    program = jax.jit(partial(run, task, optimizer))
    return [last(program(*trial)) for trial in trials]


def made_anew(task, optimizer, trials):
    """The usual loop: every trial makes an optimizer and compiles."""
    losses = []
    for rate, seed in trials:
        program = jax.jit(lambda seed, rate=rate: run(task, optimizer, rate, seed))
        losses.append(last(program(seed)))
    return losses


METHODS = {
    f.__name__: f for f in (one_sweep, sweep_over_cores, compiled_once, made_anew)
}


def measure(method, name, optimizer, few):
    """Prints seconds and bytes; `made_anew` runs a few trials and scales the time."""
    if method == "sweep_over_cores":
        jax.config.update("jax_num_cpu_devices", os.cpu_count())
    task = load_task(name)
    trials = [(rate, seed) for rate in RATES.tolist() for seed in SEEDS]
    share = trials[:: len(trials) // few] if method == "made_anew" else trials
    jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.ones(())))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    losses = METHODS[method](task, getattr(optax, optimizer), share)
    seconds = (time.perf_counter() - started) * len(trials) / len(share)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.isfinite(losses).any()
    print(json.dumps([seconds, (after - before) * 1024]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="digits", choices=TASKS)
    parser.add_argument("--optimizer", default="sgd", help="a name in optax")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--few", type=int, default=16, help="trials of made_anew")
    parser.add_argument("--measure", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.task, options.optimizer, options.few)
        return
    found = {method: [] for method in METHODS}
    for _ in range(options.rounds):
        for method in METHODS:
            command = [sys.executable, *sys.argv, "--measure", method]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            found[method].append(json.loads(output))
    fair = [seconds for seconds, _ in found["compiled_once"]]
    print(
        f"| {options.task}, {options.optimizer} | seconds | times as fast | peak MB |"
    )
    print("|---|---|---|---|")
    for method, rounds in found.items():
        seconds, memory = zip(*rounds, strict=True)
        ratio = statistics.median(map(operator.truediv, fair, seconds))
        print(
            f"| {method} | {statistics.median(seconds):.1f} | {ratio:.2f} |"
            f" {statistics.median(memory) / 1e6:.0f} |"
        )


if __name__ == "__main__":
    main()
