"""What an optimizer is for: that losses fall, and that arguments mean what they say."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras.testing import _compare
from optax_extras.testing._registry import NotApplicableError, check
from optax_extras.testing._spec import PointOf
from optax_extras.testing._subject import Subject, gradients, parameters

DESCENT_STEPS = 100


def _descends(subject: Subject, loss: Callable[[Any], jax.Array], params: Any) -> None:
    """A hundred steps lower a loss by a hundredth or more."""
    subject.needs("descent")
    tx = subject.make()

    def point(function: PointOf | None, state: Any, params: Any) -> Any:
        return params if function is None else function(state, params)

    def body(carry: Any, step: Any) -> tuple[Any, None]:
        params, state = carry
        grads = jax.grad(loss)(point(subject.spec.gradient_params, state, params))
        updates, state = subject.update(tx, grads, state, params, step)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params: Any) -> tuple[jax.Array, jax.Array]:
        steps = jnp.arange(DESCENT_STEPS, dtype=jnp.int32)
        (final, state), _ = jax.lax.scan(body, (params, tx.init(params)), steps)
        return loss(params), loss(point(subject.spec.eval_params, state, final))

    before, after = map(float, train(params))
    _compare.require(
        after < 0.99 * before,
        f"the loss after {DESCENT_STEPS} steps: expected less than {0.99 * before:g},"
        f" got {after:g}",
    )


@check()
def descends_a_parabola(subject: Subject) -> None:
    """A hundred steps lower ½ ‖x‖² by a hundredth at least.

    Why: it is the easiest problem there is.
    Source: optax's `test_optimization`; the spec declares `descent`.
    Fix: look at the sign of the updates, and at the size of the first step.
    """
    _descends(subject, lambda x: jnp.sum(x**2) / 2, jnp.array([1.0, -2.0, 0.5]))


@check()
def descends_rosenbrock(subject: Subject) -> None:
    """A hundred steps lower Rosenbrock's function, scaled to a curvature of one.

    Why: its valley is curved, and its curvatures differ by a thousand.
    Source: optax's `test_optimization`; the spec declares `descent`.
    Fix: look at the size of the steps when gradients change their direction.
    """

    def loss(x: jax.Array) -> jax.Array:
        value: jax.Array = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        return value / 2000

    _descends(subject, loss, jnp.array([-1.2, 1.0]))


@check()
def descends_a_matrix_factor(subject: Subject) -> None:
    """A hundred steps lower ½ ‖A W − B‖² for a matrix W.

    Why: methods that treat matrices on their own are tried on one.
    Source: the spec, which declares `descent`.
    Fix: look at what is done to leaves of two dimensions.
    """
    a = jnp.array([[1.0, 0.2], [0.1, 0.5], [-0.3, 0.4]])
    b = jnp.array([[1.0, -1.0, 2.0], [0.5, 0.3, -0.7], [-1.0, 0.2, 0.4]])
    start = jnp.full((2, 3), 0.1)
    _descends(subject, lambda w: jnp.sum((a @ w - b) ** 2) / 2, start)


@check()
def descends_a_mixed_tree(subject: Subject) -> None:
    """A hundred steps lower a loss of a scalar, a vector and a matrix together.

    Why: networks have all three.
    Source: the spec, which declares `descent`.
    Fix: look at the leaf that does not move.
    """

    def loss(p: Any) -> jax.Array:
        inside = jnp.tanh(p["b"] @ p["w"])
        total: jax.Array = (
            jnp.sum((p["s"] * inside - 0.5) ** 2)
            + jnp.sum(p["b"] ** 2) / 10
            + p["s"] ** 2 / 20
        )
        return total

    _descends(subject, loss, {**parameters(), "s": jnp.float32(2.0)})


@check("advice")
def leaf_order_does_not_matter(subject: Subject) -> None:
    """Renaming leaves, and so reordering them, renames the updates and no more.

    Why: adding a layer must not change how others are trained.
    Source: this suite (advice).
    Fix: do not tell leaves apart by their number in the tree.
    """
    if subject.supports("random"):
        raise NotApplicableError("it may draw by the name of a leaf")

    def renamed(tree: Any) -> Any:
        return {"a": tree["w"], "z": tree["b"]}

    tx = subject.make()
    params = renamed(parameters())
    state = tx.init(params)
    for step, run in enumerate(subject.eager[:2]):
        grads = renamed(gradients(parameters(), step))
        updates, state = subject.update(tx, grads, state, params, step)
        params = optax.apply_updates(params, updates)
        _compare.equal(
            f"the updates of step {step}",
            updates,
            renamed(run.updates),
            _compare.TOLERANCE,
        )


@check("advice")
def learning_rate_of_zero_does_nothing(subject: Subject) -> None:
    """With a learning rate of 0 the parameters stay.

    Why: warm-ups start there, and schedules end there.
    Source: this suite (advice).
    Fix: scale all that moves the parameters, decay and noise too, by the rate.
    """
    if "learning_rate" not in subject.spec.hyperparameters:
        raise NotApplicableError("the spec names no hyperparameter `learning_rate`")
    run = subject.advance(parameters(), tx=subject.make(learning_rate=0.0))
    _compare.equal("the parameters", run.params, parameters(), 1e-6)


@check()
def constant_schedule_equals_constant(subject: Subject) -> None:
    """A schedule that is constant gives the numbers of the constant.

    Why: constants are replaced by schedules when a model is tuned.
    Source: optax's
    `test_optimizers_accept_learning_rate_schedule_if_type_annotated_as_such`.
    Fix: call the schedule with the count, and cast its value as the constant's.
    """
    if not subject.spec.schedules:
        raise NotApplicableError("the spec names no schedules")
    for name in subject.spec.schedules:
        value = subject.spec.hyperparameters[name]
        tx = subject.make(**{name: optax.constant_schedule(value)})
        run = subject.advance(parameters(), tx=tx)
        _compare.equal(
            f"the updates with {name} as a schedule",
            run.updates,
            subject.eager[-1].updates,
            1e-6,
        )
