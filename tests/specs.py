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
      sweep: hyperparameters and the values of each to map over.
      scheduled: the arguments that also take a schedule.
      static: the arguments that `inject_hyperparams` must leave alone.
      stochastic: whether it draws random numbers from a `key` argument.
      buffers: whether its state is shaped like the parameters.
      expected_failures: check name to reason; strict.
    """

    name: str
    factory: Callable[..., optax.GradientTransformationExtraArgs]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sweep: Mapping[str, tuple[float, ...]] = dataclasses.field(
        default_factory=lambda: {"learning_rate": (0.0, 0.1, 1.0)}
    )
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
    "static": ("key",),
    "sweep": {"eta": (0.0, 0.1, 1.0), "gamma": (0.0, 0.55, 2.0)},
}
NOISY_SGD = {**NOISE, "learning_rate": 0.1}
LANGEVIN = {
    **NOISY_SGD,
    "sweep": {"learning_rate": (0.0, 0.1, 1.0), "temperature": (0.0, 0.1, 1.0)},
    "scheduled": ("learning_rate", "temperature"),
}
DECAY = {"sweep": {"decay": (0.0, 0.5, 0.99)}, "scheduled": ("decay",)}
MOMENTUM = {
    "learning_rate": 0.1,
    "sweep": {"momentum": (0.0, 0.5, 0.99), "learning_rate": (0.0, 0.1, 1.0)},
    "scheduled": ("learning_rate", "momentum"),
}
BETAS = {
    "sweep": {
        "b1_min": (0.0, 0.5, 0.9),
        "b1_max": (0.9, 0.95, 0.999),
        "b2": (0.0, 0.9, 0.999),
        "gamma": (0.0, 0.5, 0.99),
        "eps": (1e-8, 1e-3, 1.0),
    }
}

SPECS = [
    spec(ox.add_decayed_noise, **NOISE, scheduled=("eta",)),
    spec(ox.add_decayed_noise, "int-gamma", **NOISE, gamma=2),
    spec(ox.noisy_sgd, **NOISY_SGD, scheduled=("eta", "learning_rate")),
    spec(
        ox.noisy_sgd,
        "nesterov",
        **{**NOISY_SGD, "buffers": True},
        scheduled=("momentum",),
        momentum=0.9,
        nesterov=True,
    ),
    spec(
        ox.add_anticorrelated_noise,
        **{**NOISE, "sweep": {"stddev": (0.0, 0.1, 1.0)}},
        stddev=0.1,
        scheduled=("stddev",),
    ),
    spec(
        ox.anti_pgd,
        **{**NOISY_SGD, "sweep": {"learning_rate": (0.0, 0.1, 1.0)}},
        stddev=0.1,
        scheduled=("learning_rate", "stddev"),
        expected_failures={
            "learning_rate_of_zero": "the paper's noise is not scaled by the rate"
        },
    ),
    spec(
        ox.add_langevin_noise,
        **LANGEVIN,
        expected_failures={
            "learning_rate_of_zero": "it passes on what the stage before it made"
        },
    ),
    spec(ox.sgld, **LANGEVIN),
    spec(
        ox.psgld,
        **{
            **LANGEVIN,
            "buffers": True,
            "sweep": {"decay": (0.0, 0.5, 0.99), "eps": (1e-5, 1e-3, 1.0)},
            "scheduled": ("learning_rate", "temperature", "decay"),
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
        static=("key",),
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
