"""The slow tier: random orders of everything that happens to an optimizer's state."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_extras.testing import _compare
from optax_extras.testing._registry import NotApplicableError, check
from optax_extras.testing._subject import Subject, gradients, parameters
from optax_extras.testing.checks._round_trips import through_arrays, through_pickle

EXAMPLES, RULES = 20, 12


@check(slow=True)
def any_order_of_events(subject: Subject) -> None:
    """Steps, zero steps, round trips and wrapping in any order give the plain run.

    Why: real runs are interrupted, resumed, logged and rebuilt, in any order.
    Source: optax docs, `GradientTransformation`: `init` and `update` are pure
    functions.
    Fix: hypothesis prints the shortest order of events that goes wrong.
    """
    try:
        from hypothesis import HealthCheck, settings, stateful, strategies as st
    except ImportError as error:
        raise NotApplicableError("hypothesis is not installed") from error
    tx = subject.make()
    chained = optax.chain(optax.identity(), subject.make())

    class Machine(stateful.RuleBasedStateMachine):
        """A run to which things happen, beside one to which nothing does."""

        def __init__(self) -> None:
            super().__init__()
            self.params = self.plain_params = parameters()
            self.state = self.plain_state = tx.init(self.params)
            self.step = 0

        def advance(self, grads: Any, update: Any) -> None:
            updates, self.state = update(grads, self.state, self.params, self.step)
            self.params = optax.apply_updates(self.params, updates)
            expected, self.plain_state = subject.jitted(
                grads, self.plain_state, self.plain_params, self.step
            )
            self.plain_params = optax.apply_updates(self.plain_params, expected)
            self.step += 1

        @stateful.rule(seed=st.integers(0, 9))
        def compiled_step(self, seed: int) -> None:
            self.advance(gradients(self.params, seed), subject.jitted)

        @stateful.rule(seed=st.integers(0, 9))
        def eager_step(self, seed: int) -> None:
            def update(*arguments: Any) -> Any:
                return subject.update(tx, *arguments)

            self.advance(gradients(self.params, seed), update)

        @stateful.rule(seed=st.integers(0, 9))
        def step_in_a_chain(self, seed: int) -> None:
            def update(grads: Any, state: Any, params: Any, step: Any) -> Any:
                wrapped = (optax.EmptyState(), state)
                updates, (_, state) = subject.update(
                    chained, grads, wrapped, params, step
                )
                return updates, state

            self.advance(gradients(self.params, seed), update)

        @stateful.rule()
        def zero_step(self) -> None:
            zeros = jax.tree.map(jnp.zeros_like, self.params)
            self.advance(zeros, subject.jitted)

        @stateful.rule()
        def pickled(self) -> None:
            self.state = through_pickle(self.state)

        @stateful.rule()
        def stored_as_arrays(self) -> None:
            self.state = through_arrays(self.state)

        @stateful.rule()
        def cast_to_its_own_dtypes(self) -> None:
            self.state = jax.tree.map(lambda x: x.astype(x.dtype), self.state)

        @stateful.invariant()
        def goes_as_the_plain_run(self) -> None:
            _compare.same_types("the state", self.state, self.plain_state, weak=True)
            _compare.finite("the parameters", self.params)
            _compare.equal("the parameters", self.params, self.plain_params, 1e-3)

    profile = settings(
        max_examples=EXAMPLES,
        stateful_step_count=RULES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    stateful.run_state_machine_as_test(Machine, settings=profile)
