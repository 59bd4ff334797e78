"""What the suite is told about a transformation."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import optax

# From the optimizer's state and the parameters to a point like these.
PointOf = Callable[[optax.OptState, optax.Params], optax.Params]

# The flags of `Spec.supports`, and what each declares.
CAPABILITIES = {
    "complex": "takes complex parameters",
    "complex_as_real": "treats a complex parameter as the two real ones it is made of",
    "descent": "is a whole optimizer: adding its updates lowers a loss",
    "random": "draws random numbers, and `make` takes `key`",
}


class StepArguments(NamedTuple):
    """What a step may pass to `update` beside gradients, state and parameters."""

    value: jax.Array  # the loss at params; float[]
    grad: Any  # the gradient at params
    value_fn: Callable[[Any], jax.Array]  # a loss with that value and gradient there
    params: Any
    key: jax.Array  # a key of its own for each step
    step: Any  # int32[], from 0


def check_names(argument: str, given: Collection[str], known: Collection[str]) -> None:
    """Raises unless an argument is a collection of known names."""
    if isinstance(given, str):
        raise TypeError(f"`{argument}` must be a collection, got {given!r}")
    for name in given:
        if name not in known:
            raise ValueError(
                f"`{argument}` must be among {', '.join(known) or 'none'}; got {name!r}"
            )


@dataclasses.dataclass(frozen=True)
class Spec:
    """A gradient transformation, and what the checks need to know about it.

    Attributes:
      name: the test id.
      make: makes the transformation. It is called with ``hyperparameters`` as keyword
        arguments, some of them replaced, and with a ``key`` where it is random.
      hyperparameters: the numbers to call ``make`` with that may also be arrays. The
        checks of `optax.inject_hyperparams`, of `jax.vmap` over hyperparameters and of
        retracing need them; a hyperparameter named ``learning_rate`` is held to do
        nothing at 0.
      schedules: those of them that may also be schedules.
      extra_args: from `StepArguments` to the keyword arguments that ``update`` needs.
      gradient_params: from the optimizer's state and the parameters to those at which
        it needs gradients, such as `optax_extras.nesterov_lookahead_params`.
      eval_params: from the optimizer's state and the parameters to those at which a
        loss is evaluated, such as `optax.contrib.schedule_free_eval_params`.
      axis_name: the mapped axis that the transformation communicates over. `update` is
        then run in a `jax.shard_map` over it, on the same gradients on every worker;
        updates that differ between workers are averaged.
      workers: size of that axis; the checks are skipped where there are fewer devices.
      state_specs: from the state to its `PartitionSpec`s over the axis, for a state
        that ``init`` makes outside of it. By default ``init`` runs inside, and the
        state is the same on every worker.
      supports: capability flags, of `CAPABILITIES`.
      expected_failures: names of checks to the reasons why they fail. They are strict:
        an unexpected pass fails.
      max_state_bytes: limit on the state's bytes per parameter, for large parameters.
      max_temporary_bytes: limit on the temporary bytes per parameter of a compiled
        update.

    Raises:
      TypeError: a field has the wrong type.
      ValueError: a flag or a schedule has an unknown name, or ``workers`` is not
        positive.
    """

    name: str
    make: Callable[..., Any]
    _: dataclasses.KW_ONLY
    hyperparameters: Mapping[str, float] = dataclasses.field(default_factory=dict)
    schedules: Collection[str] = ()
    extra_args: Callable[[StepArguments], Mapping[str, Any]] | None = None
    gradient_params: PointOf | None = None
    eval_params: PointOf | None = None
    axis_name: str | None = None
    workers: int = 2
    state_specs: Callable[[optax.OptState], Any] | None = None
    supports: Collection[str] = ()
    expected_failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_state_bytes: float | None = None
    max_temporary_bytes: float | None = None

    def __post_init__(self) -> None:
        """Checks the names."""
        if not isinstance(self.name, str):
            raise TypeError(f"`name` must be a string, got {self.name!r}")
        if not callable(self.make):
            raise TypeError(
                f"`make` must be a function that makes a transformation, got"
                f" {self.make!r}"
            )
        if isinstance(self.workers, bool) or not isinstance(self.workers, int):
            raise TypeError(f"`workers` must be an int, got {self.workers!r}")
        if self.workers < 1:
            raise ValueError(f"`workers` must be positive, got {self.workers}")
        check_names("supports", self.supports, CAPABILITIES)
        check_names("schedules", self.schedules, self.hyperparameters)
