"""Which rule is for which leaf, as a table."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras import Rule

PARAMS = {
    "embed": jax.ShapeDtypeStruct((10, 4), jnp.bfloat16),
    "head": {"b": jnp.ones(()), "n": None, "w": jnp.ones((4, 2))},
    "stack": np.ones((3, 4)),
}


def warm(count):
    return count / 10


RULES = {
    "embed": Rule(optax.cosine_decay_schedule(1.0, 10), 0.0, 300),
    "head/b": Rule(0.5, warm, math.inf),
    "stack": ox.layerwise_decay("stack", 0.5, axis=0)[1]._replace(
        frozen_until=np.array([[9], [5], [0]])
    ),
}


def test_the_table_of_a_transformation():
    tx = ox.with_rules(optax.scale_by_adam(), 0.1, RULES, weight_decay=1e-4)
    table = ox.describe_rules(tx, PARAMS)
    assert str(table).splitlines() == [
        "path    shape    pattern  lr_multiplier          weight_decay  frozen_until",
        "embed   (10, 4)  embed    cosine_decay_schedule  0             300",
        "head/b  ()       head/b   0.5                    warm          forever",
        "head/w  (4, 2)   -        1                      0.0001        -",
        "stack   (3, 4)   stack    0.25…1 (3, 1)          0.0001        -…9 (3, 1)",
    ]
    assert isinstance(table, list)
    assert table[2] == ox.LeafRule("head/w", (4, 2), None, 1.0, 1e-4, 0)
    np.testing.assert_array_equal(table[3].lr_multiplier, [[0.25], [0.5], [1]])


def test_the_table_of_rules():
    table = ox.describe_rules({"head/.*": Rule(2)}, PARAMS)
    decays = [row.weight_decay for row in table]
    assert decays == [None] * 4
    assert "default" in str(table)
    pairs = iter([("head/.*", Rule(2))])
    assert ox.describe_rules(pairs, PARAMS) == table
    tx = ox.with_rules(optax.identity(), 0.1, {}, weight_decay=warm)
    assert "warm" in str(ox.describe_rules(tx, PARAMS))


def test_an_empty_table():
    assert ox.describe_rules({}, {}) == []
    header = str(ox.describe_rules({}, {"a": None}))
    assert header.split() == list(ox.LeafRule._fields)


def test_names_of_schedules_and_kinds_of_arrays():
    class Steps:
        def __call__(self, count):
            return count

    rules = {
        "a": Rule(lambda t: t, functools.partial(warm), jnp.int32(4)),
        "b": Rule(Steps(), np.zeros(0), jnp.int32(2**31 - 1)),
        "c": Rule(np.array([0.5, 0.5]), jnp.float32(0.1), np.array([2**31 - 1] * 2)),
    }
    params = {"a": jnp.ones(1), "b": jnp.ones(0), "c": jnp.ones(2)}
    texts = [row.texts()[3:] for row in ox.describe_rules(rules, params)]
    name = "test_names_of_schedules_and_kinds_of_arrays"
    assert texts == [
        ["<lambda>", "warm", "4"],
        [name, "none (0,)", "forever"],
        ["0.5 (2,)", "0.1", "forever (2,)"],
    ]


def test_traced_numbers():
    @jax.jit
    def step(x):
        rules = {"a": Rule(x, x[0])}
        seen.append(ox.describe_rules(rules, {"a": jnp.ones(2)})[0].texts()[3:5])
        return x

    seen = []
    step(jnp.ones(2))
    assert seen == [["traced (2,)", "traced"]]


def test_what_cannot_be_described():
    for tx in (optax.adam(0.1), optax.chain(ox.with_rules(optax.identity(), 1.0, {}))):
        with pytest.raises(TypeError, match="as `with_rules` returns it"):
            ox.describe_rules(tx, PARAMS)
    with pytest.raises(ValueError, match="'typo' chooses none"):
        ox.describe_rules({"typo": Rule()}, PARAMS)
    strict = ox.with_rules(optax.identity(), 1.0, {"embed": Rule()}, require_all=True)
    for rules, require_all in ((strict, False), ({"embed": Rule()}, True)):
        with pytest.raises(
            ValueError, match="none matches 'head/b', 'head/w', 'stack'"
        ):
            ox.describe_rules(rules, PARAMS, require_all=require_all)
    with pytest.raises(TypeError, match="`require_all` must be True or False"):
        ox.describe_rules({}, PARAMS, require_all="yes")
