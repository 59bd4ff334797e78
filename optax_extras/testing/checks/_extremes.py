"""Gradients, parameters and counts at the ends of their range."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras.testing import _compare
from optax_extras.testing._registry import NotApplicableError, check
from optax_extras.testing._subject import (
    Subject,
    gradients,
    parameters,
    with_integers,
)


def _steps(subject: Subject, params: Any, scales: tuple[float, ...]) -> None:
    """Steps on scaled gradients, none of which may give a number that is not finite."""
    tx = subject.make()
    state = tx.init(params)
    for step, scale in enumerate(scales):
        grads = jax.tree.map(lambda g: g * scale, gradients(params, step))  # noqa: B023
        updates, state = subject.update(tx, grads, state, params, step)
        dtype = jax.tree.leaves(params)[0].dtype
        _compare.finite(
            f"the updates of step {step}, on {dtype} gradients times {scale:g},",
            updates,
        )


@check()
def zero_gradients(subject: Subject) -> None:
    """Gradients of zero, at first and again, give finite updates, also afterwards.

    Why: dead units, masked batches and converged parameters have them.
    Source: optax docs, `adam`: `eps` avoids a division by zero.
    Fix: guard divisions with `jnp.where` on both sides, or an `eps` in the
    denominator.
    """
    _steps(subject, parameters(), (0.0, 0.0, 1.0))


@check("advice")
def zero_gradients_in_half_precision(subject: Subject) -> None:
    """The same for bfloat16 and float16, where an `eps` of 1e-8 may be 0.

    Why: 0/0 in one dead unit is NaN in the whole model a step later.
    Source: this suite (advice).
    Fix: compute in float32, and cast the result.
    """
    for dtype in (jnp.bfloat16, jnp.float16):
        _steps(subject, parameters(dtype), (0.0, 0.0, 1.0))


@check()
def zero_parameters(subject: Subject) -> None:
    """Parameters of zero give finite updates.

    Why: biases and last layers start there.
    Source: `optax.scale_by_trust_ratio`, which takes a ratio of 1 for zero parameters.
    Fix: guard divisions by a parameter's norm, as in trust ratios.
    """
    params = jax.tree.map(jnp.zeros_like, parameters())
    _steps(subject, params, (1.0, 1.0))


@check("advice")
def huge_gradients(subject: Subject) -> None:
    """Gradients of 1e15, whose squares float32 holds, give finite updates.

    Why: losses explode, and clipping may come later in the chain.
    Source: this suite (advice).
    Fix: divide before multiplying; do not take fourth powers.
    """
    _steps(subject, parameters(), (1e15, 1e15, 1.0))


@check()
def tiny_gradients(subject: Subject) -> None:
    """Gradients of 1e-25, whose squares are 0 in float32, give finite updates.

    Why: deep networks and the end of training have them.
    Source: optax docs, `adam`: `eps` avoids a division by zero.
    Fix: guard divisions with an `eps` that is not squared itself.
    """
    _steps(subject, parameters(), (1e-25, 1e-25, 1.0))


@check()
def count_at_its_end(subject: Subject) -> None:
    """A step counter at the largest int32 gives finite updates and does not wrap.

    Why: schedules of the count turn over when it becomes negative.
    Source: optax docs, `safe_increment`: a counter stays at its largest value.
    Fix: advance it with `optax.safe_increment`; take powers in float32.
    """
    params = parameters()
    tx = subject.make()
    state = tx.init(params)
    paths = subject.counters(state)
    if not paths:
        raise NotApplicableError("its state has no counter")

    state = with_integers(state, paths, lambda largest: largest)
    updates, after = subject.update(tx, gradients(params, 0), state, params)
    _compare.finite("the updates", updates)
    for path, leaf in jax.tree.leaves_with_path(after):
        if path in paths:
            largest = np.iinfo(jnp.result_type(leaf)).max
            _compare.require(
                int(leaf) == largest,
                f"the counter at {_compare.show(path)}: expected {largest}, got {leaf}",
            )
