"""The table of transformations that the conformance checks run over."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

import optax_extras as ox


@dataclasses.dataclass(frozen=True)
class Spec:
    """A transformation and what the checks need to know about it.

    Attributes:
      name: the test id.
      factory: makes the transformation.
      arguments: the factory's keyword arguments.
      sweep: a hyperparameter and the values to map over.
      scheduled: the arguments that also take a schedule.
      static: the arguments that `inject_hyperparams` must leave alone.
      stochastic: whether it draws random numbers from a `key` argument.
      buffers: whether its state is shaped like the parameters.
      expected_failures: check name to reason; strict.
    """

    name: str
    factory: Callable[..., optax.GradientTransformationExtraArgs]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sweep: tuple[str, tuple[float, ...]] = ("learning_rate", (0.0, 0.1, 1.0))
    scheduled: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    stochastic: bool = False
    buffers: bool = True
    expected_failures: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def make(self, **overrides: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation, with some arguments replaced."""
        return self.factory(**{**self.arguments, **overrides})


def spec(factory: Any, suffix: str = "", **options: Any) -> Spec:
    """A `Spec` named after its factory; what is no field of it is an argument."""
    fields = {field.name for field in dataclasses.fields(Spec)}
    arguments = {k: v for k, v in options.items() if k not in fields}
    options = {k: v for k, v in options.items() if k in fields}
    name = f"{factory.__name__}-{suffix}" if suffix else factory.__name__
    return Spec(name, factory, arguments, **options)


NOISE = {
    "stochastic": True,
    "buffers": False,
    "key": 7,
    "sweep": ("eta", (0.0, 0.1, 1.0)),
}
TRACE_BELONGS_TO_OPTAX = (
    "optax.trace drops the buffer of a None gradient from its state"
)
DECAY = {"sweep": ("decay", (0.0, 0.5, 0.99)), "scheduled": ("decay",)}
MOMENTUM = {
    "learning_rate": 0.1,
    "sweep": ("momentum", (0.0, 0.5, 0.99)),
    "scheduled": ("learning_rate", "momentum"),
}
BETAS = {"sweep": ("b1_min", (0.0, 0.5, 0.9))}

SPECS = [
    spec(ox.add_decayed_noise, **NOISE, scheduled=("eta",)),
    spec(ox.add_decayed_noise, "int-gamma", **NOISE, gamma=2),
    spec(ox.noisy_sgd, **NOISE, learning_rate=0.1, scheduled=("eta", "learning_rate")),
    spec(
        ox.noisy_sgd,
        "nesterov",
        **{**NOISE, "buffers": True},
        learning_rate=0.1,
        momentum=0.9,
        nesterov=True,
        expected_failures={
            "none_gradient_beside_a_parameter": TRACE_BELONGS_TO_OPTAX,
            "structure_mismatch_raises": "optax.trace does not check",
            "gradient_dtype_leaves_the_state_alone": "optax.trace promotes its buffer",
        },
    ),
    spec(ox.trace_with_bias_correction, **DECAY),
    spec(ox.trace_with_bias_correction, "nesterov", **DECAY, nesterov=True),
    spec(ox.trace_with_bias_correction, "plain", **DECAY, bias_correction=False),
    spec(
        ox.trace_with_bias_correction,
        "random-start",
        **DECAY,
        initial_scale=0.1,
        key=7,
        stochastic=True,
    ),
    spec(
        ox.trace_with_bias_correction,
        "float32-accumulator",
        **DECAY,
        accumulator_dtype=jnp.float32,
        static=("accumulator_dtype",),
    ),
    spec(ox.momentum_sgd, **MOMENTUM),
    spec(
        ox.momentum_sgd,
        "nesterov-corrected",
        **MOMENTUM,
        nesterov=True,
        bias_correction=True,
    ),
    spec(ox.momentum_sgd, "rate-outside", **MOMENTUM, learning_rate_inside=False),
    spec(ox.nesterov_lookahead, **MOMENTUM),
    spec(ox.scale_by_adasmooth, **BETAS),
    spec(ox.scale_by_adasmooth, "leaf", **BETAS, scope="leaf", debias="product"),
    spec(ox.scale_by_adasmooth, "element", **BETAS, scope="element", normalize=True),
    spec(
        ox.scale_by_adasmooth,
        "mended",
        **BETAS,
        normalize=True,
        debias="product",
        smoothness=lambda v: jnp.exp(-v),
        static=("smoothness", "mu_dtype"),
        mu_dtype=jnp.float32,
    ),
    spec(ox.adasmooth, learning_rate=0.1, scheduled=("learning_rate",)),
    spec(
        ox.adasmooth,
        "weight-decay",
        learning_rate=0.1,
        weight_decay=0.01,
        scope="element",
        debias="product",
    ),
]
