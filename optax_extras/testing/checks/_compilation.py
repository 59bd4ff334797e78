"""What compiled programs do with a transformation: jit, scan, cond, vmap, donation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras.testing import _compare
from optax_extras.testing._registry import check
from optax_extras.testing._subject import (
    STEPS,
    Subject,
    gradients,
    other_value,
    parameters,
)


@check()
def jit_equals_eager(subject: Subject) -> None:
    """The compiled update gives the numbers of the eager one.

    Why: everyone compiles it, and debugs it eagerly.
    Source: JAX docs, `jax.jit`: a compiled pure function gives what the function does.
    Fix: no Python `if`, `float` or `int` of traced values, and nothing that is decided
    once, at tracing, but should be at every step.
    """
    _compare.equal(
        "updates of the compiled steps",
        [run.updates for run in subject.compiled],
        [run.updates for run in subject.eager],
        _compare.TOLERANCE,
    )


@check()
def no_retrace(subject: Subject) -> None:
    """The compiled update is traced once, whatever the step and the numbers.

    Why: a second compilation of a large training step takes minutes.
    Source: optax's `test_optimization`: the second update compiles nothing.
    Fix: keep dtypes and weak types of the state fixed, and the step in an array.
    """
    _ = subject.compiled
    count = len(subject.traces)
    _compare.require(count == 1, f"expected one trace in {STEPS} steps, got {count}")


@check()
def no_tracer_leaks(subject: Subject) -> None:
    """`init` and `update` keep no tracer when their trace ends.

    Why: a leaked tracer fails far from its cause, in the next call.
    Source: JAX docs, `jax.checking_leaks`.
    Fix: store nothing computed inside `update` in an object outside it.
    """
    tx, params = subject.make(), parameters()

    def step(params: Any) -> Any:
        return subject.update(tx, gradients(params, 0), tx.init(params), params)

    with jax.checking_leaks():
        jax.eval_shape(step, jax.eval_shape(lambda: params))


@check()
def hyperparameters_may_be_arrays(subject: Subject) -> None:
    """Traced hyperparameters give what numbers give, and new values do not retrace.

    Why: sweeps and learning-rate tuning pass them as arrays.
    Source: `optax.ScalarOrSchedule`, which includes arrays.
    Fix: compute with them in `jnp`; no Python `if`, `float` or `math` on them.
    """
    names = subject.hyperparameters
    traces: list[None] = []
    params = parameters()

    @jax.jit
    def first_update(values: Any, params: Any) -> Any:
        traces.append(None)
        tx = subject.make(**values)
        return subject.update(tx, gradients(params, 0), tx.init(params), params)[0]

    for change in (lambda value: value, other_value):
        values = {k: change(v) for k, v in names.items()}
        tx = subject.make(**values)
        expected, _ = subject.update(tx, gradients(params, 0), tx.init(params), params)
        arrays = {k: jnp.float32(v) for k, v in values.items()}
        _compare.equal(
            f"the updates with {values} as arrays",
            first_update(arrays, params),
            expected,
            _compare.TOLERANCE,
        )
    _compare.require(
        len(traces) == 1, f"expected one trace for two values, got {len(traces)}"
    )


@check()
def vmap_over_hyperparameters(subject: Subject) -> None:
    """`jax.vmap` over the hyperparameters is the same as one run for each.

    Why: it is how a grid of learning rates becomes one program.
    Source: `jax.vmap`, whose result is that of a loop over the members.
    Fix: treat them as 0-d arrays; no comparison of them in Python.
    """
    names = subject.hyperparameters
    params = parameters()

    def train(values: Any) -> Any:
        return subject.advance(params, tx=subject.make(**values), steps=2).updates

    other = {name: other_value(value) for name, value in names.items()}
    _each_is_itself(train, names, other)


def _each_is_itself(train: Callable[[Any], Any], *members: Any) -> None:
    """Holds `jax.vmap(train)` over members equal to `train` of each."""
    stacked = jax.tree.map(lambda *x: jnp.array(x), *members)
    batched = jax.jit(jax.vmap(train))(stacked)
    for i, member in enumerate(members):
        ours = jax.tree.map(lambda x: x[i], batched)  # noqa: B023
        what = f"the updates of member {i}"
        _compare.equal(what, ours, train(member), _compare.TOLERANCE)


@check()
def vmap_over_parameters(subject: Subject) -> None:
    """`jax.vmap` of `init` and `update` is the same as one run for each member.

    Why: ensembles and seeds are trained so.
    Source: `jax.vmap`, whose result is that of a loop over the members.
    Fix: no reduction over more than the leaf's own axes, no `lax.cond` on a Python
    bool.
    """
    tx = subject.make()

    def train(member: Any) -> Any:
        params, grads = member

        def update(_: Any, state: Any, params: Any, step: Any) -> Any:
            return subject.update(tx, grads, state, params, step)

        return subject.advance(params, tx=tx, steps=2, update=update).updates

    members = [(parameters(seed=i), gradients(parameters(), i)) for i in (0, 1)]
    _each_is_itself(train, *members)


@check()
def scan_equals_loop(subject: Subject) -> None:
    """A `lax.scan` over steps gives the numbers of a Python loop.

    Why: it is the fastest training loop there is.
    Source: `jax.lax.scan`, whose result is that of a Python loop.
    Fix: keep the state's types fixed, and the step in the state.
    """
    params, state, _ = subject.scanned(STEPS)
    last = subject.eager[-1]
    _compare.equal("the parameters", params, last.params, _compare.TOLERANCE)
    _compare.equal("the state", state, last.state, _compare.TOLERANCE)


@check()
def loop_length_does_not_matter(subject: Subject) -> None:
    """The first steps of a long `lax.scan` are those of a short one.

    Why: a run is stopped, resumed and prolonged.
    Source: `jax.lax.scan`, whose result is that of a Python loop.
    Fix: let nothing depend on how often a function was traced, or on the loop around.
    """
    _, _, updates = subject.scanned(2 * STEPS)
    for step, run in enumerate(subject.eager):
        first = jax.tree.map(lambda x: x[step], updates)  # noqa: B023
        _compare.equal(
            f"the updates of step {step}", first, run.updates, _compare.TOLERANCE
        )


@check()
def cond_takes_or_leaves_a_step(subject: Subject) -> None:
    """`lax.cond` may choose between a step and none.

    Why: it is how steps with bad gradients are left out.
    Source: `jax.lax.cond`, whose branches return the same types; optax's
    `test_state_shape_dtype_shard_stability`.
    Fix: return a state of the very types that came in.
    """
    tx, params = subject.make(), parameters()
    state = tx.init(params)

    @jax.jit
    def step(take: Any, state: Any) -> Any:
        def taken(state: Any) -> Any:
            return subject.update(tx, gradients(params, 0), state, params)

        def left(state: Any) -> Any:
            return jax.tree.map(jnp.zeros_like, params), state

        return jax.lax.cond(take, taken, left, state)

    _compare.equal(
        "the updates of a step taken",
        step(True, state)[0],
        subject.eager[0].updates,
        _compare.TOLERANCE,
    )
    _compare.equal("the state of a step left out", step(False, state)[1], state)


@check()
def donation(subject: Subject) -> None:
    """Parameters and state may be donated together, and `init` called again after.

    Why: it halves the memory of a training step, and everyone does it.
    Source: JAX docs, buffer donation: a donated buffer must not be used again.
    Fix: copy what `init` keeps of the parameters (`jnp.array(p)`), of the caller's key
    and of constants; let no two leaves of the state be one array.
    """
    tx = subject.make()

    @jax.jit(donate_argnums=(1, 2))
    def step(grads: Any, params: Any, state: Any, number: Any) -> Any:
        updates, state = subject.update(tx, grads, state, params, number)
        return optax.apply_updates(params, updates), state

    for _ in range(2):
        params = parameters()
        state = tx.init(params)
        for number in range(STEPS):
            grads = gradients(parameters(), number)
            params, state = step(grads, params, state, number)
        _compare.equal(
            "the parameters", params, subject.eager[-1].params, _compare.TOLERANCE
        )


@check("advice")
def state_owns_its_buffers(subject: Subject) -> None:
    """No array of the state is an argument, nor is it there twice.

    Why: without `jit`, an array that is kept is no copy: who donates the gradients
    deletes a part of the state, and a state that has an array twice cannot be donated,
    as with a hyperparameter that `optax.inject_hyperparams` keeps too.
    Source: this suite (advice).
    Fix: copy what the state keeps of an argument (`jnp.array(x)`).
    """
    values = {k: jnp.float32(v) for k, v in subject.spec.hyperparameters.items()}
    tx, params = subject.make(**values), parameters()
    state = tx.init(params)
    others = {"the hyperparameter": values, "the parameter": params}
    _owns_its_buffers("the initial state", state, others)
    for step in range(2):
        grads = gradients(params, step)
        _, state = subject.update(tx, grads, state, params, step)
        others["the gradient"] = grads
        _owns_its_buffers(f"the state after step {step}", state, others)


def _owns_its_buffers(what: str, state: Any, others: dict[str, Any]) -> None:
    owners = {
        buffer: f"{owner} {_compare.show(path)}"
        for owner, tree in others.items()
        for path, leaf in jax.tree.leaves_with_path(tree)
        for buffer in _buffers(leaf)
    }
    for path, leaf in jax.tree.leaves_with_path(state):
        for buffer in _buffers(leaf):
            where = _compare.show(path)
            _compare.require(
                buffer not in owners,
                f"{what} at {where}: expected an array of its own, got"
                f" {owners.get(buffer)}",
            )
            owners[buffer] = f"the state's {where}"


def _buffers(leaf: Any) -> list[int]:
    """The addresses of an array's buffers; those of typed keys are not told."""
    if not isinstance(leaf, jax.Array) or _compare.is_key(leaf) or not leaf.size:
        return []
    return [shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards]
