"""Scalars kept in the state, and the run that they must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras import metrics

from specs import spec

ALL = ["grad_norm", "update_norm", "param_norm", "update_ratio", "first_nonfinite"]
BY_LEAF = [metrics.grad_norm("leaf"), metrics.update_ratio("layer", {".*w": 0})]
SPECS = [
    spec(
        ox.record,
        static={"inner": optax.adam(0.1), "metrics": ALL},
        supports={"descent"},
        buffers=2,
    ),
    spec(
        ox.record,
        "sgd",
        static={"inner": optax.sgd(0.1, momentum=0.9), "metrics": ALL, "every": 2},
        supports={"descent"},
        changes={"formula", "state", "sums"},
        buffers=1,
    ),
    spec(
        ox.record,
        "noisy_sgd",
        static={"inner": ox.noisy_sgd(0.1, key=7), "metrics": [*ALL, *BY_LEAF]},
        supports={"descent"},
        changes={"formula", "state", "sums"},
        buffers=0,
    ),
]
