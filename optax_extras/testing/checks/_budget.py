"""What a transformation costs in memory."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from optax_extras._core import step_memory
from optax_extras.testing import _compare
from optax_extras.testing._registry import check
from optax_extras.testing._subject import Subject

_SHAPE = (1024, 1024)


def _large(dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(_SHAPE, dtype)


@check()
def state_bytes(subject: Subject) -> str:
    """The state of a large parameter takes no more memory than the spec allows.

    Why: it decides which model fits on a device.
    Source: the spec, which sets the limit.
    Fix: keep fewer or narrower buffers; share what several stages keep.
    """
    leaf = _large()
    state = jax.eval_shape(subject.make().init, leaf)
    total = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return _within("state", total, subject.spec.max_state_bytes)


@check()
def temporary_bytes(subject: Subject) -> str:
    """A step that donates parameters and state needs no more memory than is allowed.

    Why: temporaries of a step, in float32 or bfloat16, come on top of the state.
    Source: the spec, which sets the limit.
    Fix: write the update so that it fuses; draw noise inside of the fusion; compute
      the update from what is stored, not from a wider value; read an old buffer in one
      kernel alone.
    """
    tx = subject.make()

    def total(dtype: Any) -> int:
        leaf = _large(dtype)
        state = jax.eval_shape(tx.init, leaf)
        return step_memory.temporary_bytes(
            functools.partial(subject.update, tx), state, leaf
        )

    most = max(map(total, (jnp.float32, jnp.bfloat16)))
    return _within("temporaries", most, subject.spec.max_temporary_bytes)


def _within(what: str, total: int, limit: float | None) -> str:
    measured = total / math.prod(_SHAPE)
    if limit is not None:
        _compare.require(
            measured <= limit,
            f"{what}: expected at most {limit:g} B per parameter, got {measured:.3g}",
        )
    return f"{measured:.3g} B per parameter"
