"""diffGrad against the paper's formulas in float64."""

import optax_extras as ox

from specs import spec

NUMBERS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 1e-8}
SPECS = [
    spec(
        ox.scale_by_diffgrad,
        **NUMBERS,
        schedules=("b1", "b2"),
        supports={"complex"},
        buffers=3,
        temporaries=1,
    ),
    spec(
        ox.diffgrad,
        learning_rate=0.1,
        **NUMBERS,
        weight_decay=0.01,
        schedules=("learning_rate", "b1", "b2", "weight_decay"),
        supports={"complex", "descent"},
        changes={"formula", "state"},
        buffers=3,
        temporaries=1,
    ),
]
