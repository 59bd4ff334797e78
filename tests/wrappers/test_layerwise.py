"""Learning rates that decay from the last layer to the first."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras import Rule


def multipliers(rules, params):
    return {row.path: row.lr_multiplier for row in ox.describe_rules(rules, params)}


def layers(*numbers):
    return {f"layer_{i}": {"w": jnp.ones(1), "b": None} for i in numbers}


def test_each_layer_has_a_power():
    rule = ox.layerwise_decay(r"layer_(\d+)/.*", 0.8)
    found = multipliers([rule], {**layers(*range(12)), "head": jnp.ones(1)})
    for i in range(12):
        assert found[f"layer_{i}/w"] == pytest.approx(0.8 ** (11 - i))
    assert found["head"] == 1
    assert list(found) != sorted(found, key=found.get)  # layer_10 comes before layer_2


def test_gaps_do_not_count():
    rule = ox.layerwise_decay(r"layer_(\d+)/.*", 0.5)
    found = multipliers([rule], layers(0, 3, 7))
    assert found == {"layer_0/w": 0.25, "layer_3/w": 0.5, "layer_7/w": 1.0}


def test_leaves_of_other_rules_and_of_no_parameter_are_layers_too():
    rules = [
        ("layer_3/.*", Rule(9.0)),
        ox.layerwise_decay(r"layer_(\d+)/[a-z]", 0.5),
    ]
    params = {**layers(*range(4)), "layer_4": {"w": None}}
    found = multipliers(rules, params)
    assert found == {
        "layer_0/w": 0.0625,
        "layer_1/w": 0.125,
        "layer_2/w": 0.25,
        "layer_3/w": 9.0,
    }
    # Gradients alone tell the same.
    tx = ox.with_rules(optax.identity(), 1.0, rules)
    grads = {**params, "layer_0": {"w": None, "b": None}}
    updates, _ = tx.update(grads, tx.init(params))
    np.testing.assert_array_equal(updates["layer_1"]["w"], -0.125)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_stacked_layers(axis):
    shape = {0: (4, 2, 3), 1: (2, 4, 3), -1: (2, 3, 4)}[axis]
    params = {"w": jnp.ones(shape)}
    tx = ox.with_rules(optax.identity(), 1.0, [ox.layerwise_decay("w", 0.5, axis=axis)])
    updates, _ = tx.update(params, tx.init(params))
    expected = np.moveaxis(
        np.broadcast_to(-(0.5 ** np.arange(3, -1, -1.0)), (2, 3, 4)), 2, axis
    )
    np.testing.assert_array_equal(updates["w"], expected)


@pytest.mark.parametrize(
    "decay", [0.8, np.float32(0.8), np.array(0.8), jnp.float32(0.8)]
)
def test_decays_of_any_kind(decay):
    rules = [
        ox.layerwise_decay(r"layer_(\d+)/w", decay, weight_decay=0.5, frozen_until=2),
        ox.layerwise_decay("stack", decay, axis=0),
    ]
    found = multipliers(rules, {**layers(0, 1, 2), "stack": jnp.ones((3, 1))})
    for i in range(3):
        assert found[f"layer_{i}/w"] == pytest.approx(0.8 ** (2 - i), rel=1e-6)
    np.testing.assert_allclose(found["stack"], [[0.64], [0.8], [1]], rtol=1e-6)
    assert rules[0][1].weight_decay == 0.5
    assert rules[0][1].frozen_until == 2


def test_a_traced_decay():
    params = {**layers(0, 1, 2), "stack": jnp.ones((3, 1))}

    @jax.jit
    def update(decay):
        rules = [
            ox.layerwise_decay(r"layer_(\d+)/w", decay),
            ox.layerwise_decay("stack", decay, axis=0),
        ]
        tx = ox.with_rules(optax.identity(), 1.0, rules)
        return tx.update(params, tx.init(params))[0]

    for decay in (0.5, 0.25):
        updates = update(decay)
        np.testing.assert_allclose(updates["layer_0"]["w"], -(decay**2), rtol=1e-6)
        np.testing.assert_allclose(updates["stack"][0], -(decay**2), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((r"layers/\d+", 0.5), ValueError, r"one group, .*; 'layers/\\\\d\+' has 0"),
        ((r"(a|b)/(\d+)", 0.5), ValueError, "has 2"),
        (("(", 0.5), ValueError, "must be regular expressions"),
        ((3, 0.5), TypeError, "must be regular expressions"),
        ((r"(\d+)", 0.0), ValueError, r"`decay` must be in \(0, 1\], got 0.0"),
        ((r"(\d+)", 1.5), ValueError, r"`decay` must be in \(0, 1\], got 1.5"),
        ((r"(\d+)", "x"), TypeError, "`decay` must be a real number"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.layerwise_decay(*arguments)


def test_bad_axes():
    with pytest.raises(TypeError, match=r"`axis` must be an int or None, got 1.0"):
        ox.layerwise_decay("w", 0.5, axis=1.0)
    with pytest.raises(TypeError, match="`axis` must be an int or None, got True"):
        ox.layerwise_decay("w", 0.5, axis=True)
    with pytest.raises(ValueError, match=r"with `axis`, the pattern .* no groups"):
        ox.layerwise_decay(r"layers/(\d+)", 0.5, axis=0)
    for axis in (2, -3):
        rule = ox.layerwise_decay("w", 0.5, axis=axis)
        with pytest.raises(
            ValueError, match=r"`axis` .* got -?\d for shape \(2, 2\) at 'w'"
        ):
            ox.describe_rules([rule], {"w": jnp.ones((2, 2))})


@pytest.mark.parametrize("pattern", ["layers/(.*)/w", r"layers/(\d+)?.*"])
def test_groups_without_a_number(pattern):
    rule = ox.layerwise_decay(pattern, 0.5)
    with pytest.raises(ValueError, match=r"number, got ('x'|None) in 'layers/x/w'"):
        ox.describe_rules([rule], {"layers": {"x": {"w": jnp.ones(1)}}})
