"""Compilation of what follows a transformation, in a process that can be stopped."""

import itertools
import os
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
import sys
import jax

program = jax.export.deserialize(bytearray(sys.stdin.buffer.read()))
jax.jit(program.call).lower(*program.in_avals).compile()
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
    for name, follower in FOLLOWERS.items():
        program = _training_step(subject, follower)
        try:
            done = subprocess.run(
                [sys.executable, "-c", _COMPILE],
                input=program,
                capture_output=True,
                timeout=LIMIT,
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
            )
        except subprocess.TimeoutExpired:
            _compare.require(
                False, f"a step with {name} behind it did not compile in {LIMIT:g} s"
            )
        else:
            errors = done.stderr.decode(errors="replace")
            _compare.require(
                done.returncode == 0,
                f"a step with {name} behind it did not compile: {errors}",
            )


def _training_step(subject: Subject, follower: Any) -> bytearray:
    """A step of a small network, as a serialized program of flat arrays."""
    tx = optax.chain(subject.make(), follower)
    params = {
        f"layer{i}": {"w": jnp.full((n, m), 0.1), "b": jnp.zeros(m)}
        for i, (n, m) in enumerate(itertools.pairwise(WIDTHS))
    }
    treedef: Any
    leaves, treedef = jax.tree.flatten((params, tx.init(params)))

    def loss(params: Any, x: jax.Array) -> jax.Array:
        for layer in params.values():
            x = jnp.tanh(x @ layer["w"] + layer["b"][None])
        return jnp.sum(x**2)

    def step(x: jax.Array, *leaves: Any) -> Any:
        params, state = treedef.unflatten(leaves)
        grads = jax.grad(loss)(params, x)
        updates, state = subject.update(tx, grads, state, params)
        return jax.tree.leaves((optax.apply_updates(params, updates), state))

    export = jax.export.export(jax.jit(step), platforms=["cpu"])
    return export(jnp.ones((16, WIDTHS[0])), *leaves).serialize()
