"""What optax's own wrappers do with a transformation."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras.testing import _compare
from optax_extras.testing._registry import check
from optax_extras.testing._subject import (
    Steps,
    Subject,
    gradients,
    other_value,
    parameters,
)


@check()
def chain(subject: Subject) -> None:
    """In an `optax.chain` it does what it does alone.

    Why: every optimizer is a chain or ends in one.
    Source: optax docs, `chain`; optax's `test_chain`.
    Fix: return an `optax.GradientTransformation` or `GradientTransformationExtraArgs`.
    """
    tx = optax.chain(optax.identity(), subject.make(), optax.identity())
    run = subject.advance(parameters(), tx=tx)
    _compare.equal("the updates", run.updates, subject.eager[-1].updates, 1e-6)


@check()
def masked(subject: Subject) -> None:
    """`optax.masked` leaves the other leaves alone and changes nothing for its own.

    Why: weight decay and frozen layers are masked.
    Source: optax docs, `masked`; optax's `test_masked`.
    Fix: map over leaves with `jax.tree.map`, which passes `optax.MaskedNode` over.
    """
    subject.acts_on_parts_of_the_tree()
    params, grads = parameters(), gradients(parameters(), 0)
    tx = optax.masked(subject.make(), {"w": True, "b": False})
    updates, _ = subject.update(tx, grads, tx.init(params), params)
    outside = {"b": updates["b"]}
    _compare.equal("the update outside of the mask", outside, {"b": grads["b"]})
    if subject.supports("random"):
        return  # whether a draw depends on other leaves has a check of its own
    alone, own = {"w": params["w"]}, {"w": grads["w"]}
    tx = subject.make()
    expected, _ = subject.update(tx, own, tx.init(alone), alone)
    _compare.equal("the update inside", {"w": updates["w"]}, expected, 1e-6)


@check()
def partition(subject: Subject) -> None:
    """`optax.partition` gives every group of leaves what it gives them alone.

    Why: groups of parameters get learning rates of their own.
    Source: optax docs, `partition`; optax's `test_partition`.
    Fix: map over leaves with `jax.tree.map`, which passes `optax.MaskedNode` over.
    """
    subject.acts_on_parts_of_the_tree()
    params, grads = parameters(), gradients(parameters(), 0)
    groups = {"mine": subject.make(), "still": optax.set_to_zero()}
    tx = optax.partition(groups, {"w": "mine", "b": "still"})
    updates, _ = subject.update(tx, grads, tx.init(params), params)
    _compare.equal(
        "the update of a still leaf", {"b": updates["b"]}, {"b": 0 * grads["b"]}
    )
    alone = optax.masked(subject.make(), {"w": True, "b": False})
    expected, _ = subject.update(alone, grads, alone.init(params), params)
    own = {"w": updates["w"]}
    _compare.equal("the update of its leaf", own, {"w": expected["w"]}, 1e-6)


@check()
def multi_steps(subject: Subject) -> None:
    """`optax.MultiSteps` hands it the mean of several gradients, as one step.

    Why: it is how batches larger than memory are trained on.
    Source: optax docs, `MultiSteps`; optax's `test_gradient_accumulation`.
    Fix: keep the state's structure and dtypes fixed; it is chosen between by
    `lax.cond`.
    """
    params = parameters()
    multi = optax.MultiSteps(subject.make(), every_k_schedule=2)
    state = multi.init(params)
    mean = gradients(params, 0)
    for part in (0.5, 1.5):
        grads = jax.tree.map(lambda g: part * g, mean)  # noqa: B023
        updates, state = subject.update(multi, grads, state, params)
    _compare.equal("the updates", updates, subject.eager[0].updates, _compare.TOLERANCE)


@check()
def apply_if_finite(subject: Subject) -> None:
    """Once `optax.apply_if_finite` has left out a NaN in a leaf, it goes on as before.

    Why: one bad batch must not end a run of weeks.
    Source: optax docs, `apply_if_finite`; optax's `test_apply_if_finite`.
    Fix: keep everything that a step changes in the state, where it can be undone, and
    the state's dtypes fixed.
    """
    params = parameters()
    tx = optax.apply_if_finite(subject.make(), max_consecutive_errors=5)
    good = gradients(params, 0)
    bad = {**good, "w": jnp.nan * good["w"]}
    updates, state = subject.update(tx, bad, tx.init(params), params)
    _compare.equal("the updates of a NaN", updates, optax.tree.zeros_like(params))
    updates, _ = subject.update(tx, good, state, params)
    _compare.equal(
        "the updates after a NaN",
        updates,
        subject.eager[0].updates,
        _compare.TOLERANCE,
    )


@check()
def flatten(subject: Subject) -> None:
    """`optax.flatten`, which makes one vector of all leaves, works around it.

    Why: it makes many small leaves faster.
    Source: optax docs, `flatten`; optax's `test_flatten`.
    Fix: take one 1-d array as parameters.
    """
    subject.acts_on_parts_of_the_tree()
    params = parameters()
    tx = optax.flatten(subject.make())
    run = subject.advance(params, tx=tx, steps=2)
    _compare.same_types("the updates", run.updates, params)
    _compare.finite("the updates", run.updates)


def _inject(subject: Subject, **options: Any) -> Any:
    """The factory injected, with just the spec's hyperparameters as its arguments."""
    arguments = subject.hyperparameters

    def factory(**values: Any) -> Any:
        return subject.make(**values)

    kind = inspect.Parameter.KEYWORD_ONLY
    factory.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in arguments]
    )
    return optax.inject_hyperparams(factory, **options)(**arguments)


@check()
def inject_hyperparams(subject: Subject) -> None:
    """`optax.inject_hyperparams` around the factory changes no update.

    Why: it is how hyperparameters are logged and changed while training.
    Source: optax's `test_optimizers_can_be_wrapped_in_inject_hyperparams`.
    Fix: compute with hyperparameters in `jnp`; no Python `if` or `float` of them.
    """
    run = subject.advance(parameters(), tx=_inject(subject))
    _compare.equal(
        "the updates", run.updates, subject.eager[-1].updates, _compare.TOLERANCE
    )


@check("advice")
def inject_hyperparams_on_bfloat16(subject: Subject) -> None:
    """On bfloat16 parameters it gives finite numbers near the right ones, or an error.

    Why: optax makes the hyperparameters bfloat16 there, and 0.999 becomes 1.0; a
    debiasing by 1 − 0.999ᵗ is then 0/0.
    Source: this suite (advice).
    Fix: refuse a bfloat16 decay with an error that names it, or keep 1 − decay.
    """
    params = parameters(jnp.bfloat16)
    try:
        run = subject.advance(params, tx=_inject(subject))
    except (TypeError, ValueError) as error:
        named = any(name in str(error) for name in subject.spec.hyperparameters)
        _compare.require(
            named, f"expected an error that names a hyperparameter, got: {error}"
        )
        return
    _compare.equal("the updates", run.updates, subject.advance(params).updates, 0.3)


@check("advice")
def inject_float32_hyperparams_on_bfloat16(subject: Subject) -> None:
    """With `hyperparam_dtype=jnp.float32`, bfloat16 parameters get bfloat16 updates.

    Why: it is the remedy for rounded hyperparameters; float32 arrays must not widen
    the leaves they meet.
    Source: this suite (advice).
    Fix: cast the result of arithmetic with a hyperparameter back to the leaf's dtype.
    """
    params = parameters(jnp.bfloat16)
    tx = _inject(subject, hyperparam_dtype=jnp.float32)
    run = subject.advance(params, tx=tx)
    _compare.same_types("the updates", run.updates, params)
    expected = subject.advance(params).updates
    _compare.equal("the updates", run.updates, expected, 0.03)


@check()
def injected_hyperparameters_take_effect(subject: Subject) -> None:
    """A value written into the state of `optax.inject_hyperparams` acts at once.

    Why: warm restarts and population-based training write them.
    Source: optax docs, `inject_hyperparams`: numbers in its state may be changed;
    optax's `test_overriding_hyperparam`.
    Fix: read hyperparameters in `update`; copy none into the state in `init`.
    """
    tx = _inject(subject)
    start = Steps(parameters(), tx.init(parameters()), None)
    later = subject.advance(start.params, tx=tx, state=start.state, steps=1)
    for name, value in subject.spec.hyperparameters.items():
        # Others than the rate may be meant for the start, such as an initial scale.
        run = start if name == "learning_rate" else later
        new = other_value(value)
        hyperparams = {**run.state.hyperparams, name: jnp.float32(new)}
        state = run.state._replace(hyperparams=hyperparams)
        changed = subject.advance(run.params, tx=tx, state=state, start=1, steps=1)
        fresh = subject.make(**{name: new})
        inner = fresh.init(run.params) if run is start else run.state.inner_state
        expected = subject.advance(run.params, tx=fresh, state=inner, start=1, steps=1)
        _compare.equal(
            f"the updates with {name} = {new}",
            changed.updates,
            expected.updates,
            _compare.TOLERANCE,
        )
