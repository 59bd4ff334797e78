"""Compilation of what follows a transformation, in a process that can be stopped."""

import itertools
import os
import pickle
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras.testing import _compare
from optax_extras.testing._registry import NotApplicableError, check
from optax_extras.testing._subject import Subject

# Seconds for a new Python to start and to compile both steps, which takes about five.
LIMIT = 120.0
FOLLOWERS = {"optax.adam": optax.adam(0.01), "optax.lamb": optax.lamb(0.01)}
WIDTHS = (32, 64, 64, 10)
_COMPILE = """
import pickle
import sys
import jax

for program in pickle.load(sys.stdin.buffer):
    step = jax.export.deserialize(program)
    jax.jit(step.call).lower(*step.in_avals).compile()
    print("compiled", flush=True)
"""


@check()
def compiles_before_other_transformations(subject: Subject) -> None:
    """A training step with `optax.adam` or `optax.lamb` behind it compiles in time.

    Why: XLA copies arithmetic into each of its consumers, and some compilers take
    exponential time over long chains; users then wait for a first step that never ends.
    Source: `optax.chain`, in which any transformation may follow, and `jax.jit` of the
    whole step.
    Fix: hand long chains of arithmetic on through `jax.lax.optimization_barrier`.
    """
    subject.needs_no_axis()
    try:
        import flatbuffers as flatbuffers  # what `jax.export` serializes with
    except ImportError as error:
        raise NotApplicableError("flatbuffers is not installed") from error
    programs = [_training_step(subject, follower) for follower in FOLLOWERS.values()]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _COMPILE],
            input=pickle.dumps(programs),
            capture_output=True,
            timeout=LIMIT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
    except subprocess.TimeoutExpired as error:
        output, failure = error.stdout or b"", f" in {LIMIT:g} s"
    else:
        output, failure = done.stdout, f": {done.stderr.decode(errors='replace')}"
    compiled = output.count(b"compiled")
    if compiled < len(FOLLOWERS):
        behind = list(FOLLOWERS)[compiled]
        _compare.require(
            False, f"a step with {behind} behind it did not compile{failure}"
        )


def _training_step(subject: Subject, follower: Any) -> bytearray:
    """A step of a small network, as a serialized program of flat arrays."""
    tx = optax.chain(subject.make(), follower)
    layers = list(enumerate(itertools.pairwise(WIDTHS)))
    weights = {f"w{i}": jnp.full(shape, 0.1) for i, shape in layers}
    params = weights | {f"b{i}": jnp.zeros(shape[1]) for i, shape in layers}
    treedef: Any
    leaves, treedef = jax.tree.flatten((params, tx.init(params)))

    def loss(params: Any, x: jax.Array) -> jax.Array:
        for i, _ in layers:
            x = jnp.tanh(x @ params[f"w{i}"] + params[f"b{i}"][None])
        return jnp.sum(x**2)

    def step(x: jax.Array, *leaves: Any) -> Any:
        params, state = treedef.unflatten(leaves)
        grads = jax.grad(loss)(params, x)
        updates, state = subject.update(tx, grads, state, params)
        return jax.tree.leaves((optax.apply_updates(params, updates), state))

    export = jax.export.export(jax.jit(step), platforms=["cpu"])
    try:
        return export(jnp.ones((16, WIDTHS[0])), *leaves).serialize()
    except NotImplementedError as error:  # as of host callbacks
        raise NotApplicableError(f"its step cannot be exported: {error}") from error
