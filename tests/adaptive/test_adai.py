"""Adai against the paper's formulas in float64."""

import optax_extras as ox

from specs import spec

NUMBERS = {"b0": 0.1, "b2": 0.99, "eps": 1e-3}
SPECS = [
    spec(
        ox.scale_by_adai,
        **NUMBERS,
        schedules=("b2",),
        supports={"complex"},
        buffers=3,
    ),
    spec(
        ox.adai,
        learning_rate=0.1,
        **NUMBERS,
        weight_decay=0.01,
        schedules=("learning_rate", "b2", "weight_decay"),
        supports={"complex", "descent"},
        changes={"formula", "state"},
        buffers=3,
    ),
]
