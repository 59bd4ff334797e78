"""What a transformation costs in memory."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from optax_extras.testing import _compare
from optax_extras.testing._registry import check
from optax_extras.testing._subject import Subject

_SHAPE = (256, 256)


def _large() -> jax.Array:
    return jnp.zeros(_SHAPE)


@check()
def state_bytes(subject: Subject) -> str:
    """The state of a large parameter takes no more memory than the spec allows.

    Why: it decides which model fits on a device.
    Source: the spec, which sets the limit.
    Fix: keep fewer or narrower buffers; share what several stages keep.
    """
    leaf = jax.eval_shape(_large)
    state = jax.eval_shape(subject.make().init, leaf)
    total = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return _within("state", total, subject.spec.max_state_bytes)


@check()
def temporary_bytes(subject: Subject) -> str:
    """A compiled update of a large parameter needs no more memory than is allowed.

    Why: temporaries of an update come on top of the state.
    Source: the spec, which sets the limit.
    Fix: write the update so that it fuses; draw noise inside of the fusion.
    """
    tx = subject.make()
    leaf = jax.eval_shape(_large)
    state = jax.eval_shape(tx.init, leaf)
    step = jax.jit(
        lambda grads, state, params: subject.update(tx, grads, state, params),
        donate_argnums=(0, 1),
    )
    analysis: Any = step.lower(leaf, state, leaf).compile().memory_analysis()
    total = analysis.temp_size_in_bytes
    return _within("temporaries", total, subject.spec.max_temporary_bytes)


def _within(what: str, total: int, limit: float | None) -> str:
    measured = total / math.prod(_SHAPE)
    if limit is not None:
        _compare.require(
            measured <= limit,
            f"{what}: expected at most {limit:g} B per parameter, got {measured:.3g}",
        )
    return f"{measured:.3g} B per parameter"
