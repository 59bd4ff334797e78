"""Numbers of every width, and complex ones."""

from typing import Any

import jax
import jax.numpy as jnp

from optax_extras.testing import _compare
from optax_extras.testing._registry import NotApplicableError, check
from optax_extras.testing._subject import Subject, gradients, parameters, random_like


def _keeps(subject: Subject, dtype: Any) -> None:
    """Two steps in a dtype: updates and state keep their types and are finite."""
    params = parameters(dtype)
    tx = subject.make()
    state = tx.init(params)
    # Compiled, as eager operations of a new dtype are each compiled alone.
    update = jax.jit(lambda *arguments: subject.update(tx, *arguments))
    run = subject.advance(params, state=state, steps=2, update=update)
    _compare.same_types("the updates", run.updates, params)
    _compare.same_types("the state", run.state, state)
    _compare.finite("the updates", run.updates)


@check()
def bfloat16(subject: Subject) -> None:
    """bfloat16 parameters and gradients give bfloat16 updates and a state of one type.

    Why: half of all models are trained in it.
    Source: optax's `test_preserve_dtype` and `test_state_shape_dtype_shard_stability`.
    Fix: compute in float32, and cast each result once, to the dtype it is kept in.
    """
    _keeps(subject, jnp.bfloat16)


@check()
def float16(subject: Subject) -> None:
    """float16 parameters and gradients give finite float16 updates.

    Why: they are used where bfloat16 is slow, and overflow at 65504.
    Source: optax's `test_state_shape_dtype_shard_stability`.
    Fix: compute in float32; an `eps` of 1e-8 is 0 in float16.
    """
    _keeps(subject, jnp.float16)


@check()
def float64(subject: Subject) -> None:
    """With x64, float64 parameters give float64 updates, and float32 ones float32.

    Why: scientific users run in double precision, with some leaves in single.
    Source: optax's `test_mixed_dtype_input_outputs`.
    Fix: take the leaf's dtype, not JAX's default one, for what you make.
    """
    with jax.enable_x64(True):
        _keeps(subject, jnp.float64)
        _keeps(subject, jnp.float32)


@check("advice")
def gradients_of_another_dtype(subject: Subject) -> None:
    """float32 gradients of bfloat16 parameters leave the state's types alone.

    Why: losses are scaled and gradients accumulated in float32.
    Source: this suite (advice).
    Fix: cast what goes into the state to the dtype that `init` gave it.
    """
    params = parameters(jnp.bfloat16)
    tx = subject.make()
    state = tx.init(params)
    grads = gradients(params, 0, jnp.float32)
    _, after = subject.update(tx, grads, state, params)
    _compare.same_types("the state", after, state)


@check("advice")
def strict_dtype_promotion(subject: Subject) -> None:
    """`init` and `update` run under `jax.numpy_dtype_promotion("strict")`.

    Why: projects set it to catch silent widening, and then cannot use this optimizer.
    Source: this suite (advice).
    Fix: cast integers before arithmetic (`count.astype(jnp.float32)`).
    """
    with jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(lambda: _first_step(subject))


@check("advice")
def strict_rank_promotion(subject: Subject) -> None:
    """`init` and `update` run under `jax.numpy_rank_promotion("raise")`.

    Why: projects set it to catch silent broadcasting, and then cannot use this
    optimizer.
    Source: this suite (advice).
    Fix: broadcast explicitly (`x[None]`, `jnp.broadcast_to`).
    """
    with jax.numpy_rank_promotion("raise"):
        jax.eval_shape(lambda: _first_step(subject))


def _first_step(subject: Subject) -> Any:
    tx, params = subject.make(), parameters()
    return subject.update(tx, gradients(params, 0), tx.init(params), params)


@check()
def complex_numbers(subject: Subject) -> None:
    """Complex parameters give complex updates, and real numbers the real ones.

    Why: signal processing and physics train complex parameters.
    Source: optax's `test_optimization` with complex64 parameters; the spec declares
    `complex`.
    Fix: use `jnp.abs(g) ** 2` for squares, real buffers for it, and do not compare or
    round complex numbers.
    """
    subject.needs("complex")
    _keeps(subject, jnp.complex64)
    if subject.supports("random"):
        return
    run = subject.advance(
        _as_complex(parameters()),
        update=lambda grads, state, params, step: subject.update(
            subject.make(),
            _as_complex(gradients(parameters(), step)),
            state,
            params,
            step,
        ),
    )
    expected = subject.eager[-1].updates
    _compare.equal(
        "the real part of the updates of real numbers",
        jax.tree.map(jnp.real, run.updates),
        expected,
        _compare.TOLERANCE,
    )
    _compare.equal(
        "the imaginary part of the updates of real numbers",
        jax.tree.map(jnp.imag, run.updates),
        jax.tree.map(jnp.zeros_like, expected),
    )


def _as_complex(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.complex64), tree)


@check()
def complex_equals_its_real_view(subject: Subject) -> None:
    """A complex parameter is moved as the two real ones it is made of.

    Why: it is what PyTorch does, and what a loss of two real parameters would.
    Source: optax docs, `contrib.split_real_and_imaginary`; the spec declares
    `complex_as_real`.
    Fix: map the real and the imaginary part separately
    (`optax.contrib.split_real_and_imaginary`).
    """
    subject.needs("complex_as_real")
    if subject.supports("random"):
        raise NotApplicableError("the two draw different numbers")

    def view(tree: Any) -> Any:
        return jax.tree.map(lambda x: jnp.stack([x.real, x.imag]), tree)

    params = parameters(jnp.complex64)
    tx = subject.make()
    state, real_state = tx.init(params), tx.init(view(params))
    for step in range(2):
        grads = random_like(params, 100 + step)
        updates, state = subject.update(tx, grads, state, params, step)
        expected, real_state = subject.update(
            tx, view(grads), real_state, view(params), step
        )
        _compare.equal(
            f"the updates of step {step}, as real numbers",
            view(updates),
            expected,
            _compare.TOLERANCE,
        )
