"""AdaShift against the paper's formulas in float64."""

import optax_extras as ox

from specs import spec

NUMBERS = {"b1": 0.9, "b2": 0.999, "eps": 1e-10}
DIRECTION = {**NUMBERS, "schedules": ("b1", "b2"), "supports": {"complex"}}
SPECS = [
    spec(ox.scale_by_adashift, **DIRECTION, static={"window": 3}, buffers=3),
    spec(
        ox.scale_by_adashift,
        "element",
        **DIRECTION,
        changes={"formula", "state", "sums"},
        static={"window": 3, "spatial": "element"},
        buffers=4,
    ),
    spec(
        ox.scale_by_adashift,
        "mean",
        **DIRECTION,
        changes={"formula", "sums"},
        static={"window": 2, "spatial": "mean"},
        buffers=2,
    ),
    spec(
        ox.adashift,
        learning_rate=0.1,
        **{**DIRECTION, "schedules": ("learning_rate", "b1", "b2")},
        weight_decay=0.01,
        changes={"formula", "state"},
        buffers=10,
    ),
]
