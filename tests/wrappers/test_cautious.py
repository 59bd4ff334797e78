"""Cautious updates against the paper's formulas in float64, and what they reduce to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox

from specs import spec
from wrapped import bad_gradients, rows

ZEROS = "elements that are left out are 0 in every draw"
DRAWS = dict.fromkeys(
    (
        "keys_draw_differently",
        "leaves_draw_differently",
        "steps_draw_differently",
        "partition_groups_draw_differently",
    ),
    ZEROS,
)
SPECS = [
    *rows(ox.cautious, {}, of_noise=DRAWS, temporaries=1),
    spec(
        ox.cautious,
        "fraction",
        min_fraction=0.5,
        static={"inner": optax.sgd(0.1, 0.9)},
        buffers=1,
        temporaries=1,
        supports={"complex", "descent"},
        changes={"formula"},
        expected_failures={
            "gradients_of_another_dtype": "optax makes the buffers wider"
        },
    ),
]

STEPS = 30
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, 3, 4)) + 0.3
PARAMS = jnp.zeros((3, 4))


def updates_of(tx, gradients=GRADIENTS, dtype=jnp.float32):
    """The updates of all steps."""
    params = jnp.zeros(np.shape(gradients)[1:], dtype)
    _, outputs = jax.lax.scan(
        lambda state, g: tx.update(g, state, params)[::-1],
        tx.init(params),
        jnp.asarray(gradients, dtype),
    )
    return np.asarray(outputs)


def oracle(gradients, min_fraction=1e-3, rate=0.1, b1=0.9, b2=0.99, eps=1e-8):
    """Cautious Adam in float64, and the fraction that each step keeps."""
    m, v, outputs, fractions = 0.0, 0.0, [], []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        mask = u * g > 0
        outputs.append(-rate * u * mask / max(mask.mean(), min_fraction))
        fractions.append(mask.mean())
    return np.array(outputs), np.array(fractions)


@pytest.mark.parametrize("min_fraction", [1e-3, 0.6, 1.0])
def test_oracle(min_fraction, x64):
    tx = ox.cautious(optax.adam(0.1, b2=0.99), min_fraction=min_fraction)
    expected, fractions = oracle(GRADIENTS, min_fraction)
    np.testing.assert_allclose(updates_of(tx, dtype=jnp.float64), expected, rtol=1e-9)
    # Something is kept and something left out, on both sides of 0.6.
    assert fractions.min() < 0.6 < fractions[1:].max() < 1
    with jax.enable_x64(False):
        np.testing.assert_allclose(updates_of(tx), expected, rtol=1e-3, atol=1e-5)


def test_around_sgd_it_changes_no_bit():
    """An update that is the gradient descends it, whatever the scale is."""
    sgd = optax.sgd(0.1)
    np.testing.assert_array_equal(updates_of(ox.cautious(sgd)), updates_of(sgd))
    momentum = optax.sgd(0.1, 0.9)
    assert (updates_of(ox.cautious(momentum)) != updates_of(momentum)).any()


def test_without_the_scale_elements_are_those_of_the_optimizer_or_zero():
    inner = optax.adam(0.1)
    found, plain = updates_of(ox.cautious(inner, min_fraction=1.0)), updates_of(inner)
    agree = plain * GRADIENTS < 0
    np.testing.assert_array_equal(found, np.where(agree, plain, 0))
    assert 0.5 < agree.mean() < 1


def test_the_scale_keeps_the_sum_of_equal_steps():
    found = updates_of(ox.cautious(optax.lion(0.1)))
    total = np.abs(found).sum((1, 2))
    np.testing.assert_allclose(total[total > 0], 0.1 * 12, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "documented"), [({}, 100.0), ({"min_fraction": 1.0}, 1.0)]
)
def test_gradients_of_zero_count_as_left_out(options, documented):
    grads = jnp.zeros(1000).at[:10].set(1.0)
    tx = ox.cautious(optax.sgd(0.1), **options)
    updates, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_allclose(updates[:10], -0.1 * documented, rtol=1e-6)
    np.testing.assert_array_equal(updates[10:], 0)


def test_the_scale_has_a_limit():
    grads = jnp.zeros(10_000).at[0].set(1.0)
    tx = ox.cautious(optax.sgd(0.1))
    updates, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_allclose(updates[0], -0.1 * 1000, rtol=1e-6)


def test_nothing_agrees():
    tx = ox.cautious(optax.sgd(-0.1))  # ascends
    assert (updates_of(tx) == 0).all()


def test_a_direction_points_up():
    whole = ox.cautious(optax.adam(0.1))
    direction = ox.cautious(optax.scale_by_adam(), descent=False)
    chained = optax.chain(direction, optax.scale_by_learning_rate(0.1))
    np.testing.assert_allclose(updates_of(chained), updates_of(whole), rtol=1e-6)
    wrong = updates_of(ox.cautious(optax.scale_by_adam()))
    assert ((wrong == 0) | (updates_of(chained) == 0)).all()


def test_decay_behind_it_is_not_left_out():
    """The documentation's C-AdamW."""
    tx = optax.chain(
        ox.cautious(optax.scale_by_adam(), descent=False),
        optax.add_decayed_weights(0.1),
        optax.scale_by_learning_rate(0.5),
    )
    plain = ox.cautious(optax.adam(0.5))
    params = jnp.array([1.0, -2.0, 3.0])
    state, plain_state = tx.init(params), plain.init(params)
    for grads in (jnp.ones(3), jnp.array([1.0, -0.1, 1.0])):
        updates, state = tx.update(grads, state, params)
        expected, plain_state = plain.update(grads, plain_state, params)
    assert expected[1] == 0
    np.testing.assert_allclose(updates, expected - 0.5 * 0.1 * params, rtol=1e-5)


def test_signs_of_small_numbers():
    """Their product is 0 in float32."""
    grads = jnp.array([1e-30, -1e-30, 1e-30])
    tx = ox.cautious(optax.sgd(1e-3))
    updates, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_allclose(updates, -1e-3 * grads, rtol=1e-6)


def test_nan_stays():
    grads = jnp.array([1.0, jnp.nan, 2.0])
    tx = ox.cautious(optax.sgd(0.1))
    updates, _ = tx.update(grads, tx.init(grads), grads)
    assert jnp.isnan(updates[1])


def test_complex_elements_are_kept_if_they_descend():
    """Whatever their phase is."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(STEPS, 6, 2)) @ np.array([1.0, 1j])
    inner = optax.sgd(0.1, 0.9)
    found = updates_of(ox.cautious(inner), gradients, jnp.complex64)
    plain = updates_of(inner, gradients, jnp.complex64)
    agree = (gradients.conj() * plain).real < 0
    expected = plain * agree / agree.mean(1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert 0.5 < agree.mean() < 1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_rounded_once(dtype):
    inner = optax.sgd(0.1, 0.9)
    plain = updates_of(inner, dtype=dtype)
    found = updates_of(ox.cautious(inner), dtype=dtype)
    agree = plain.astype(float) * np.asarray(GRADIENTS, dtype).astype(float) < 0
    fraction = agree.mean((1, 2), keepdims=True, dtype=np.float32)
    scale = np.float32(1) / np.maximum(fraction, np.float32(1e-3))
    expected = (plain.astype(np.float32) * scale).astype(dtype)
    np.testing.assert_array_equal(found, np.where(agree, expected, np.zeros((), dtype)))


def test_each_leaf_has_a_fraction_of_its_own():
    params = {"w": PARAMS, "v": PARAMS[0]}
    tx, inner = ox.cautious(optax.sgd(0.1, 0.9)), optax.sgd(0.1, 0.9)
    state, inner_state = tx.init(params), inner.init(params)
    for g in jnp.asarray(GRADIENTS, jnp.float32):
        grads = {"w": g, "v": -g[0]}
        updates, state = tx.update(grads, state, params)
        plain, inner_state = inner.update(grads, inner_state, params)
        for name, u in plain.items():
            agree = u * grads[name] < 0
            expected = u * agree / max(agree.mean(), 1e-3)
            np.testing.assert_allclose(updates[name], expected, rtol=1e-5)
    # What is inside does not know of it.
    jax.tree.map(np.testing.assert_array_equal, state.inner_state, inner_state)


def test_slices_of_a_stack_have_fractions_of_their_own():
    params = {"layers": PARAMS}
    inner = ox.cautious(optax.sgd(0.1, 0.9))
    stacked = ox.stacked(inner, {"layers": 0})
    state, alone = stacked.init(params), inner.init(list(PARAMS))
    for g in jnp.asarray(GRADIENTS[:5], jnp.float32):
        updates, state = stacked.update({"layers": g}, state, params)
        expected, alone = inner.update(list(g), alone, list(PARAMS))
    np.testing.assert_allclose(updates["layers"], jnp.stack(expected), rtol=1e-6)


def test_min_fraction_may_be_mapped():
    values = jnp.array([1e-3, 0.6, 1.0])
    found = jax.vmap(
        lambda x: jax.lax.scan(
            lambda state, g: tx_of(x).update(g, state, PARAMS)[::-1],
            tx_of(x).init(PARAMS),
            jnp.asarray(GRADIENTS, jnp.float32),
        )[1]
    )(values)
    for row, value in zip(found, values, strict=True):
        np.testing.assert_allclose(row, updates_of(tx_of(float(value))), rtol=1e-5)


def tx_of(min_fraction):
    return ox.cautious(optax.adam(0.1), min_fraction=min_fraction)


def test_a_leaf_without_a_gradient_and_extra_arguments():
    def update(grads, state, params=None, *, value):
        del state, params
        return jax.tree.map(lambda g: -value * g, grads), optax.EmptyState()

    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = ox.cautious(
        optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    )
    grads = {"a": jnp.ones(2), "b": None}
    updates, _ = tx.update(grads, tx.init(params), params, value=3.0)
    assert updates["b"] is None
    np.testing.assert_array_equal(updates["a"], -3)
    adam = ox.cautious(optax.adam(0.1))
    updates, _ = adam.update(grads, adam.init(params), params)
    assert updates["b"] is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"min_fraction": 0.0}, ValueError, r"`min_fraction` must be in \(0, 1\], got"),
        ({"min_fraction": 1.5}, ValueError, r"`min_fraction` must be in \(0, 1\], got"),
        ({"min_fraction": "1"}, TypeError, "`min_fraction` must be a real number"),
        ({"descent": 1}, TypeError, "`descent` must be True or False, got 1"),
        ({"inner": 0.1}, TypeError, "`inner` must be a gradient transformation"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.cautious(**{"inner": optax.adam(0.1), **arguments})


@bad_gradients
def test_bad_gradients(bad, error, message):
    params = {"w": jnp.ones((2, 3))}
    tx = ox.cautious(optax.adam(0.1))
    with pytest.raises(error, match=message):
        tx.update(bad, tx.init(params), params)
