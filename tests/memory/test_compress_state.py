"""States in fewer bytes, around any transformation."""

import jax
import optax

import optax_extras as ox
from optax_extras.codecs import bfloat16, blockwise, float8

from specs import spec

FIRST, SECOND = blockwise(), blockwise(signed=False)
MOMENTS = {"mu": FIRST, "nu": SECOND}
# Bytes of a parameter in blocks of 256 elements.
EIGHT_BITS = 1 + 4 / 256


BY_PATH = {"leaf_order_does_not_matter": "rounding is by the path of a leaf"}
OF_ADAM = {
    **BY_PATH,
    "strict_dtype_promotion": "optax computes b ** count",
}


def row(suffix, around, codecs, state_bytes, **options):
    """A row around an optimizer."""
    return spec(
        ox.compress_state,
        suffix,
        **{
            "around": around,
            "static": {"codecs": codecs},
            "max_state_bytes": state_bytes + 0.01,
            "max_temporary_bytes": 1.0 if IN_PLACE else None,
            "supports": {"descent"},
            "changes": {"formula", "state"} if suffix else (),
            "learning_rate": 0.1,
            "schedules": ("learning_rate",),
            "expected_failures": BY_PATH,
            **options,
        },
    )


# Older versions of XLA:CPU ignore barriers.
IN_PLACE = jax.__version_info__ >= (0, 11, 1)
SPECS = [
    row("", optax.adam, MOMENTS, 2 * EIGHT_BITS, expected_failures=OF_ADAM),
    row("bfloat16", optax.adam, {"mu|nu": bfloat16()}, 4, expected_failures=OF_ADAM),
    row(
        "float8",
        optax.adam,
        {"mu|nu": float8()},
        2 * EIGHT_BITS,
        expected_failures=OF_ADAM,
    ),
    row(
        "4_bits",
        optax.adam,
        {**MOMENTS, "mu": blockwise(4)},
        1.6,
        expected_failures=OF_ADAM,
    ),
    row(
        "adamw",
        optax.adamw,
        MOMENTS,
        2 * EIGHT_BITS,
        weight_decay=0.01,
        expected_failures=OF_ADAM,
    ),
    # Its update reads the old momentum, which optax copies too: 4 bytes there.
    row(
        "lion",
        optax.lion,
        {"mu": FIRST},
        EIGHT_BITS,
        max_temporary_bytes=1.1,
        expected_failures={},  # signs
    ),
    row(
        "adafactor",
        optax.adafactor,
        {"v_row|v_col|v": SECOND},
        1,
        max_temporary_bytes=8.1,  # as without codes
        expected_failures={
            **BY_PATH,
            "count_at_its_end": "the decay of optax overflows",
        },
    ),
    row("momentum", ox.momentum_sgd, {"trace": FIRST}, EIGHT_BITS),
    row(
        "adasmooth",
        ox.adasmooth,
        {"mu|previous": FIRST, "nu": SECOND},
        3 * EIGHT_BITS,
        max_temporary_bytes=8.1,  # for the sum over all changes
    ),
    row(
        "sgld",
        ox.sgld,
        {".*": bfloat16()},  # it has nothing to compress
        0,
        temperature=0.01,
        schedules=(),
        supports={"descent", "random"},
        expected_failures={},
    ),
]
