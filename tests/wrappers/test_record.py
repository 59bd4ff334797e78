"""Scalars kept in the state, and the run that they must not change."""

import optax

import optax_extras as ox
from optax_extras import metrics

from specs import spec

ALL = ["grad_norm", "update_norm", "param_norm", "update_ratio", "first_nonfinite"]
BY_LEAF = [metrics.grad_norm("leaf"), metrics.update_ratio("leaf")]
OF_OPTAX = {
    "none_gradient": "optax's moments lose the leaf",
    "gradients_of_another_dtype": "optax's moments take the gradients' dtype",
}
SPECS = [
    spec(
        ox.record,
        static={"inner": ox.momentum_sgd(0.1, 0.9), "metrics": [*ALL, *BY_LEAF]},
        supports={"complex", "complex_as_real", "descent"},
        buffers=1,
        temporaries=1,  # the updates, which are applied and measured
    ),
    spec(
        ox.record,
        "adam",
        static={"inner": optax.adam(0.1), "metrics": ALL, "every": 2},
        supports={"descent"},
        changes={"formula", "state", "sums"},
        expected_failures={
            **OF_OPTAX,
            "strict_dtype_promotion": "optax.adam raises a float to an int32 power",
            "zero_gradients_in_half_precision": "eps of optax.adam is 0 in float16",
        },
        buffers=2,
    ),
    spec(
        ox.record,
        "sgd",
        static={"inner": optax.sgd(0.1, momentum=0.9), "metrics": BY_LEAF, "every": 3},
        supports={"descent"},
        changes={"formula", "state", "sums"},
        expected_failures=OF_OPTAX,
        buffers=1,
    ),
    spec(
        ox.record,
        "noisy_sgd",
        static={"inner": ox.noisy_sgd(0.1, key=7), "metrics": ALL},
        supports={"descent"},
        changes={"formula", "state", "sums", "consumers"},
        expected_failures={"leaf_order_does_not_matter": "leaves draw by their paths"},
        buffers=0,
        temporaries=1,
    ),
]
