"""The table of this library's transformations, for the conformance suite."""

import functools
from typing import Any

import jax.numpy as jnp

import optax_extras as ox
from optax_extras.testing import Spec

# Bytes per parameter for counts, keys and other statistics of one number.
SCALARS = 0.01


def spec(
    factory: Any,
    suffix: str = "",
    *,
    buffers: int = 0,
    temporaries: int = 0,
    static: dict[str, Any] | None = None,
    **options: Any,
) -> Spec:
    """A spec named after its factory, with so many float32 buffers and temporaries.

    What is no field of `Spec` is a hyperparameter; `static` arguments are none.
    """
    fields = {name: options.pop(name) for name in list(options) if name in FIELDS}
    fields.setdefault("max_state_bytes", 4 * buffers + SCALARS)
    fields.setdefault("max_temporary_bytes", 4 * temporaries + SCALARS)
    return Spec(
        f"{factory.__name__}-{suffix}" if suffix else factory.__name__,
        functools.partial(factory, **(static or {})),
        hyperparameters=options,
        **fields,
    )


FIELDS = tuple(Spec.__dataclass_fields__)
RANDOM = {"supports": {"random", "complex"}}
NOISY_SGD = {"supports": {"random", "complex", "descent"}, "learning_rate": 0.1}
REAL = {"complex", "complex_as_real"}
DECAY = {"decay": 0.9, "schedules": ("decay",), "supports": REAL}
MOMENTUM = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "schedules": ("learning_rate", "momentum"),
    "supports": REAL | {"descent"},
}
BETAS = {
    "b1_min": 0.9,
    "b1_max": 0.999,
    "b2": 0.999,
    "gamma": 0.9,
    "eps": 1e-8,
    "temporaries": 1,
}
ADASMOOTH = {**BETAS, "supports": {"complex"}}
LANGEVIN = {
    "supports": {"random", "complex"},
    "schedules": ("learning_rate", "temperature"),
    "learning_rate": 0.1,
    "temperature": 0.5,
}

SPECS = [
    spec(ox.add_decayed_noise, **RANDOM, eta=0.01, gamma=0.55, schedules=("eta",)),
    spec(ox.add_decayed_noise, "int-gamma", **RANDOM, eta=0.01, static={"gamma": 2}),
    spec(
        ox.noisy_sgd,
        **NOISY_SGD,
        eta=0.01,
        gamma=0.55,
        schedules=("eta", "learning_rate"),
    ),
    spec(
        ox.noisy_sgd,
        "nesterov",
        **NOISY_SGD,
        buffers=1,
        momentum=0.9,
        schedules=("momentum",),
        static={"nesterov": True},
    ),
    spec(ox.add_anticorrelated_noise, **RANDOM, stddev=0.1, schedules=("stddev",)),
    spec(
        ox.anti_pgd,
        **NOISY_SGD,
        stddev=0.01,
        schedules=("learning_rate", "stddev"),
        expected_failures={
            "learning_rate_of_zero_does_nothing": (
                "the paper's noise is not scaled by the rate"
            )
        },
    ),
    spec(
        ox.add_langevin_noise,
        **LANGEVIN,
        expected_failures={
            "learning_rate_of_zero_does_nothing": (
                "it passes on what the stage before it made"
            )
        },
    ),
    spec(ox.sgld, **LANGEVIN),
    spec(
        ox.psgld,
        **{**LANGEVIN, "schedules": ("learning_rate", "temperature", "decay")},
        buffers=1,
        decay=0.9,
        eps=1e-5,
    ),
    spec(ox.trace_with_bias_correction, **DECAY, buffers=1),
    spec(
        ox.trace_with_bias_correction,
        "nesterov",
        **DECAY,
        buffers=1,
        static={"nesterov": True},
    ),
    spec(
        ox.trace_with_bias_correction,
        "plain",
        **DECAY,
        buffers=1,
        static={"bias_correction": False},
    ),
    spec(
        ox.trace_with_bias_correction,
        "random-start",
        **{**DECAY, "supports": RANDOM["supports"]},
        buffers=1,
        static={"initial_scale": 0.1},
        expected_failures={
            "steps_draw_differently": "it draws once, for the initial trace"
        },
    ),
    spec(
        ox.trace_with_bias_correction,
        "float32-accumulator",
        **DECAY,
        buffers=1,
        static={"accumulator_dtype": jnp.float32},
    ),
    spec(ox.momentum_sgd, **MOMENTUM, buffers=1),
    spec(
        ox.momentum_sgd,
        "nesterov-corrected",
        **MOMENTUM,
        buffers=1,
        static={"nesterov": True, "bias_correction": True},
    ),
    spec(
        ox.momentum_sgd,
        "rate-outside",
        **MOMENTUM,
        buffers=1,
        static={"learning_rate_inside": False},
    ),
    spec(
        ox.nesterov_lookahead,
        **MOMENTUM,
        buffers=1,
    ),
    spec(ox.scale_by_adasmooth, **ADASMOOTH, buffers=3),
    spec(
        ox.scale_by_adasmooth,
        "leaf",
        **ADASMOOTH,
        buffers=3,
        static={"scope": "leaf", "debias": "product"},
    ),
    spec(
        ox.scale_by_adasmooth,
        "element",
        **ADASMOOTH,
        buffers=4,
        static={"scope": "element", "normalize": True},
    ),
    spec(
        ox.scale_by_adasmooth,
        "mended",
        **{**ADASMOOTH, "temporaries": 2},
        buffers=3,
        static={
            "normalize": True,
            "debias": "product",
            "smoothness": lambda v: jnp.exp(-v),
            "mu_dtype": jnp.float32,
        },
    ),
    spec(
        ox.adasmooth,
        **BETAS,
        buffers=3,
        learning_rate=0.1,
        schedules=("learning_rate",),
        supports={"complex", "descent"},
    ),
    spec(
        ox.adasmooth,
        "weight-decay",
        buffers=5,
        temporaries=1,
        learning_rate=0.1,
        weight_decay=0.01,
        supports={"complex", "descent"},
        static={"scope": "element", "debias": "product"},
    ),
]
