"""Transformations that tests of wrappers are around."""

import types
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax
import pytest

import optax_extras as ox

from specs import Row, spec

# Faults of optax's own transformations, which a wrapper does not repair.
OF_OPTAX = {
    "inject_float32_hyperparams_on_bfloat16": "optax widens these updates",
    "gradients_of_another_dtype": "optax makes the buffers wider",
}
OF_ADAM = {
    **OF_OPTAX,
    "strict_dtype_promotion": "optax computes b ** count",
    "zero_gradients_in_half_precision": "its eps is 0 in float16",
}

# Those that treat a leaf as a whole, and those that do not.
BY_LEAF = {
    "lamb": lambda: optax.lamb(0.1),
    "lars": lambda: optax.lars(1.0, 0.01),
    "adafactor": lambda: optax.adafactor(0.1, min_dim_size_to_factor=2),
    "novograd": lambda: optax.novograd(0.1),
    "fromage": lambda: optax.fromage(0.1),
    "muon": lambda: optax.contrib.muon(0.1),
    "adaptive_grad_clip": lambda: optax.adaptive_grad_clip(0.1),
    "clip_by_block_rms": lambda: optax.clip_by_block_rms(0.1),
    "scale_by_trust_ratio": optax.scale_by_trust_ratio,
    "adasmooth": lambda: ox.adasmooth(0.1, scope="leaf"),
}
BY_ELEMENT = {
    "adam": lambda: optax.adam(0.1),
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.1),
    "momentum": lambda: ox.momentum_sgd(0.1),
}
NOISY = {
    "noisy_sgd": lambda: ox.noisy_sgd(0.1, 1.0, key=3),
    "anti_pgd": lambda: ox.anti_pgd(0.1, 1.0, key=3),
    "sgld": lambda: ox.sgld(0.1, temperature=0.1, key=3),
    "random start": lambda: optax.chain(
        ox.trace_with_bias_correction(0.9, initial_scale=1.0, key=3), optax.scale(-0.1)
    ),
}


def rows(
    factory: Any,
    excused: dict[str, str],
    *,
    of_noise: Mapping[str, str] = types.MappingProxyType({}),
    temporaries: int = 0,
    **static: Any,
) -> list[Row]:
    """Rows of a wrapper around Adam, momentum and noise.

    Args:
      factory: of the wrapper.
      excused: checks that fail around all of them, with the reasons.
      of_noise: those that fail around noise.
      temporaries: float32 copies of the updates that a step takes.
      **static: further arguments of the factory.
    """
    of_all = {
        "static": static,
        "schedules": ("learning_rate",),
        "learning_rate": 0.1,
        "temporaries": temporaries,
    }
    return [
        spec(
            factory,
            **of_all,
            around=optax.adam,
            supports={"descent"},
            buffers=2,
            expected_failures={**OF_ADAM, **excused},
        ),
        spec(
            factory,
            "momentum",
            **of_all,
            around=optax.sgd,
            momentum=0.9,
            supports={"descent"},
            buffers=1,
            changes={"state"},
            expected_failures={**OF_OPTAX, **excused},
        ),
        spec(
            factory,
            "noisy",
            **{**of_all, "schedules": ("learning_rate", "eta")},
            around=ox.noisy_sgd,
            eta=0.01,
            supports={"descent", "random"},
            changes={"draws", "sums"},
            expected_failures={**excused, **of_noise},
        ),
    ]


# Gradients that do not fit parameters {"w": (2, 3)}, and what is said of them.
bad_gradients = pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"w": jnp.ones((3, 2))}, ValueError, r"got \(3, 2\) at \['w'\]"),
        ({"v": jnp.ones((2, 3))}, ValueError, r"\['v'\] is only in `updates`"),
        (
            {"w": jnp.ones((2, 3), int)},
            TypeError,
            r"floating-point or complex.*\['w'\]",
        ),
    ],
)
