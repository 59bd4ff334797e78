"""The state and the updates: their structure, their types, and that nothing mutates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras.testing import _compare
from optax_extras.testing._registry import (
    ConformanceError,
    NotApplicableError,
    check,
)
from optax_extras.testing._subject import Subject, gradients, parameters


@check()
def state_is_a_fixed_point(subject: Subject) -> None:
    """`update` keeps the structure, shapes, dtypes and weak types of the state.

    Why: `lax.scan`, `lax.cond` and checkpoints need it, and a change compiles the
    training step a second time.
    Source: `jax.lax.scan`, whose carry keeps its types; optax's
    `test_state_shape_dtype_shard_stability`.
    Fix: give every number of the initial state a dtype (`jnp.zeros((), jnp.int32)`),
    and cast what `update` computes back to it.
    """
    tx, params = subject.make(), parameters()
    state = jax.eval_shape(tx.init, params)
    for path, leaf in jax.tree.leaves_with_path(state):
        _compare.require(
            not leaf.weak_type,
            f"the initial state at {_compare.show(path)}: expected a dtype of its own,"
            f" got weakly typed {leaf.dtype}{list(leaf.shape)}",
        )

    def update(grads: Any, state: Any, params: Any) -> Any:
        return subject.update(tx, grads, state, params)

    _, after = jax.eval_shape(update, gradients(params, 0), state, params)
    _compare.same_types("the state after an update", after, state, weak=True)


@check()
def updates_match_parameters(subject: Subject) -> None:
    """The updates have the structure, shapes and dtypes of the parameters.

    Why: `optax.apply_updates` broadcasts what does not fit, and parameters change
    their shape or are moved by the wrong numbers.
    Source: optax docs, `apply_updates`: structure and shapes match those of the
    parameters; optax's `test_preserve_dtype`.
    Fix: return one array of the parameter's shape and dtype for every gradient.
    """
    tx, params = subject.make(), parameters()
    updates, _ = subject.update(tx, gradients(params, 0), tx.init(params), params)
    _compare.same_types("the updates", updates, params)


@check("advice")
def state_holds_plain_arrays(subject: Subject) -> None:
    """Every leaf of the state is a JAX array of numbers: no typed key, no Python int.

    Why: `np.savez`, `optax.tree.norm` and checkpoint libraries fail on typed keys,
    and Python numbers are constants to `jit` or compile again.
    Source: this suite (advice).
    Fix: keep `jax.random.key_data(key)` in place of a typed key, and `jnp` arrays in
    place of numbers.
    """
    for path, leaf in jax.tree.leaves_with_path(subject.make().init(parameters())):
        is_key = _compare.is_key(leaf)
        got = leaf.dtype if is_key else f"{type(leaf).__module__}.{type(leaf).__name__}"
        _compare.require(
            isinstance(leaf, jax.Array) and not is_key,
            f"the initial state at {_compare.show(path)}: expected a JAX array of"
            f" numbers, got {got}",
        )


@check()
def init_accepts_abstract_values(subject: Subject) -> None:
    """`jax.eval_shape(init, params)` works and describes the real state.

    Why: large models ask for the state's shapes and shardings before memory for it
    exists.
    Source: optax's `test_init_with_abstract_input`.
    Fix: do not read the parameters' values in `init` (`float(p)`, `if p.sum() > 0`).
    """
    tx, params = subject.make(), parameters()
    state = jax.eval_shape(tx.init, jax.eval_shape(lambda: params))
    _compare.same_types(
        "the abstract state", state, jax.eval_shape(lambda: tx.init(params))
    )


@check()
def init_is_reusable(subject: Subject) -> None:
    """Calling the factory or `init` again gives the same state and the same updates.

    Why: sweeps, tests and restarts build the optimizer more than once in a process.
    Source: optax docs, `GradientTransformation`: `init` and `update` are pure
    functions.
    Fix: keep nothing in variables outside the state, and do not consume an iterator.
    """
    params = parameters()
    tx = subject.make()
    first = tx.init(params)
    subject.advance(params, tx=tx, state=first, steps=2)
    for what, other in (("a second `init`", tx), ("a second factory", subject.make())):
        state = other.init(params)
        _compare.equal(f"the state of {what}", state, first)
        updates = subject.advance(params, tx=other, state=state, steps=1).updates
        _compare.equal(
            f"the updates of {what}", updates, subject.eager[0].updates, 1e-6
        )


@check()
def pure(subject: Subject) -> None:
    """`update` gives the same for the same arguments, and changes none of them.

    Why: JAX assumes it; a compiled function keeps what it saw when it was traced.
    Source: optax docs, `GradientTransformation`: `init` and `update` are pure
    functions.
    Fix: put what changes into the state, and build new containers in place of writing
    into those that were passed.
    """
    tx, params = subject.make(), parameters()
    arguments = (gradients(params, 0), tx.init(params), params)

    def numbers() -> Any:
        return jax.tree.map(lambda x: np.array(_compare.as_numpy(x)), arguments)

    before = numbers()
    first = subject.update(tx, *arguments)
    second = subject.update(tx, *arguments)
    _compare.equal("the second call's updates and state", second, first)
    _compare.equal("the arguments after the call", numbers(), before)


@check()
def missing_params_raise_clearly(subject: Subject) -> None:
    """Without `params`, `update` works as with them or raises an error that names them.

    Why: they are an optional argument, and most callers forget them once.
    Source: optax docs, `TransformUpdateFn`: `params` are optional unless they are
    needed; optax raises a ValueError then (`NO_PARAMS_MSG`).
    Fix: `if params is None: raise ValueError("`params` must be given to `update`")`.
    """
    if subject.spec.extra_args is not None:
        raise NotApplicableError("its extra arguments are made from the parameters")
    tx, params = subject.make(), parameters()
    try:
        updates, _ = tx.update(gradients(params, 0), tx.init(params))
    except Exception as error:
        _compare.require(
            isinstance(error, (TypeError, ValueError))
            and ("params" in str(error) or "parameters" in str(error)),
            "without `params`: expected a ValueError or TypeError that names `params`,"
            f" got {type(error).__name__}: {error}",
        )
    else:
        _compare.equal(
            "the updates without `params`", updates, subject.eager[0].updates, 1e-6
        )


@check()
def unknown_extra_arguments_are_accepted(subject: Subject) -> None:
    """Behind `optax.with_extra_args_support`, arguments meant for others do no harm.

    Why: a chain passes the arguments of one stage (`value=…`) to every stage.
    Source: optax docs, `TransformUpdateExtraArgsFn`: arguments that are not needed are
    ignored; optax's `test_optimizers_accept_extra_args`.
    Fix: give `update` a `**extra_args`, and ignore what is in it.
    """
    tx, params = subject.make(), parameters()

    class Stage:
        """The update with one more argument."""

        update = staticmethod(
            lambda *arguments, **extra: tx.update(
                *arguments, **extra, meant_for_another_stage="x"
            )
        )

    updates, _ = subject.update(Stage, gradients(params, 0), tx.init(params), params)
    _compare.equal("the updates", updates, subject.eager[0].updates, 1e-6)


@check("advice")
def count_can_be_read_and_set(subject: Subject) -> None:
    """The step counter is called `count`, where `optax.tree.get` and `set` find it.

    Why: loggers, schedules and restarts read and set the step of any optimizer so.
    Source: this suite (advice).
    Fix: name the counter `count` in a `NamedTuple` state.
    """
    state = subject.make().init(parameters())
    if not subject.counters(state):
        raise NotApplicableError("its state has no counter")
    found = optax.tree.get_all_with_path(state, "count")
    _compare.require(found, "`optax.tree.get_all_with_path(state, 'count')` finds none")
    changed = optax.tree.set(state, count=jnp.int32(5))
    for path, value in optax.tree.get_all_with_path(changed, "count"):
        _compare.require(
            int(value) == 5,
            f"`optax.tree.set(state, count=5)` at {_compare.show(path)}: got {value}",
        )


@check("advice")
def tree_norm_of_state(subject: Subject) -> None:
    """`optax.tree.norm` of the state is a number.

    Why: it is how states are logged and compared.
    Source: this suite (advice).
    Fix: keep arrays of numbers in the state; typed keys as `jax.random.key_data`.
    """
    optax.tree.norm(subject.make().init(parameters()))


@check("advice")
def tree_cast_of_state(subject: Subject) -> None:
    """`optax.tree.cast` of the state to bfloat16 keeps its structure.

    Why: it is how states are made smaller to be stored or sent.
    Source: this suite (advice).
    Fix: keep arrays of numbers in the state; typed keys as `jax.random.key_data`.
    """
    state = subject.make().init(parameters())
    there = optax.tree.cast(state, jnp.bfloat16)
    _compare.same_structure("the cast state", there, state)


@check()
def tree_map_params_of_state(subject: Subject) -> None:
    """`optax.tree.map_params` finds the parameter-like parts and keeps the rest.

    Why: it is how shardings and masks are laid over an optimizer's state.
    Source: optax's `test_optimization`, which maps over every state.
    Fix: build these parts from `params` with `jax.tree.map` in `init`, for any leaves.
    """
    tx, params = subject.make(), parameters()
    state = tx.init(params)
    try:
        mapped = optax.tree.map_params(tx, lambda x: x, state)
    except Exception as error:
        raise ConformanceError(
            "`optax.tree.map_params` runs `init` on parameters without leaves: expected"
            f" a state of the same structure, got {type(error).__name__}: {error}"
        ) from error
    _compare.equal("the mapped state", mapped, state)
