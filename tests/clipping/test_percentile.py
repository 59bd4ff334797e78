"""Clipping to a percentile of past norms, against NumPy's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox
from optax_extras._core import history
from optax_extras.clipping._percentile import _percentile

from specs import spec

SPECS = [
    spec(
        ox.clip_by_percentile,
        percentile=10.0,
        static={"window": 16},
        temporaries=1,
        supports={"complex", "complex_as_real"},
    )
]

STEPS = 60
SHAPES = {"a": (5, 3), "b": (4,)}


def gradients(seed=0, dtype=np.float32):
    """Gradients of all steps, whose norms vary by orders of magnitude."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(size=STEPS))
    return {
        name: (
            size.reshape(-1, *[1] * len(shape)) * rng.normal(size=(STEPS, *shape))
        ).astype(dtype)
        for name, shape in SHAPES.items()
    }


def norms_of(grads):
    """The norm of each step."""
    squares = [np.sum(np.square(g.reshape(STEPS, -1)), 1) for g in grads.values()]
    return np.sqrt(np.sum(squares, 0))


def run(tx, grads, dtype=jnp.float32):
    """Updates of all steps and the states after them."""
    grads = jax.tree.map(lambda g: jnp.asarray(g).astype(dtype), grads)

    def body(state, grads):
        updates, state = tx.update(grads, state)
        return state, (updates, state)

    state = tx.init({name: jnp.zeros(shape, dtype) for name, shape in SHAPES.items()})
    return jax.jit(lambda: jax.lax.scan(body, state, grads))()[1]


def wide(grads):
    return {name: np.asarray(g, np.float64) for name, g in grads.items()}


@pytest.mark.parametrize(
    ("percentile", "window"), [(0, 7), (10, STEPS), (33.3, 20), (97, 7), (100, STEPS)]
)
def test_oracle(percentile, window):
    grads = gradients()
    norms = norms_of(wide(grads))
    updates, _ = run(ox.clip_by_percentile(percentile, window=window), grads)
    for t, norm in enumerate(norms):
        past = norms[max(0, t + 1 - window) : t + 1]
        scale = min(1.0, np.percentile(past, percentile) / norm)
        for name, g in grads.items():
            np.testing.assert_allclose(
                updates[name][t], scale * g[t].astype(np.float64), rtol=2e-6
            )


@pytest.mark.daily("False-0.0", "False-33.3", "True-50.0", "True-99.9", "True-100.0")
@pytest.mark.parametrize("percentile", [0.0, 10.0, 33.3, 50.0, 99.9, 100.0])
@pytest.mark.parametrize("traced", [False, True])
def test_the_percentile_is_numpys_within_two_units(percentile, traced):
    norms = np.exp(3 * np.random.default_rng(1).normal(size=1024)).astype(np.float32)
    norms[900:] = 1e6  # a step between two norms that all shares can be read from

    def body(percentile, values, norm):
        values = history.append(values, norm)
        filled = jnp.sum(values > 0, dtype=jnp.int32)
        found = _percentile(history.ordered(values, filled), filled, percentile)
        return values, found

    def found(percentile):
        start = jnp.zeros(1024)
        return jax.lax.scan(partial(body, percentile), start, jnp.asarray(norms))[1]

    if traced:
        exact = float(np.float32(percentile))
        actual = jax.jit(found)(jnp.float32(percentile))
    else:
        exact, actual = percentile, found(percentile)
    wide_norms = norms.astype(np.float64)
    expected = [np.percentile(wide_norms[: t + 1], exact) for t in range(1024)]
    np.testing.assert_array_max_ulp(
        np.asarray(actual), np.asarray(expected, np.float32), 2
    )


def test_the_source_keeps_all_norms_and_counts_the_current_one():
    tx = ox.clip_by_percentile(100.0, window=2)
    state = tx.init(jnp.zeros(()))
    for norm, emitted in [(3, 3), (5, 5), (4, 4)]:
        update, state = tx.update(jnp.float32(norm), state)
        assert update == emitted
    tx = ox.clip_by_percentile(0.0, window=2)  # the lower of the last two
    state = tx.init(jnp.zeros(()))
    for norm, emitted in [(1, 1), (5, 1), (4, 4), (8, 4)]:
        update, state = tx.update(jnp.float32(norm), state)
        np.testing.assert_allclose(update, emitted, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_passes_and_is_forgotten(bad):
    grads = gradients()
    bad_grads = {name: g.copy() for name, g in grads.items()}
    bad_grads["a"][20, 1, 1] = bad
    tx = ox.clip_by_percentile(30.0, window=16)
    updates, states = run(tx, bad_grads)
    for name in SHAPES:  # the bits stay
        np.testing.assert_array_equal(updates[name][20], bad_grads[name][20])
    assert np.isfinite(states.history).all()
    np.testing.assert_array_equal(states.history[20], states.history[19])
    assert states.count[-1] == STEPS
    without = {name: np.delete(g, 20, 0) for name, g in grads.items()}
    expected, _ = run(tx, without)
    for name in SHAPES:
        np.testing.assert_array_equal(
            np.delete(updates[name], 20, 0), expected[name], strict=True
        )


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.bfloat16, 2**-8), (jnp.float16, 2**-10)]
)
def test_half_precision_is_scaled_in_single(dtype, tolerance):
    rounded = wide(
        jax.tree.map(lambda g: jnp.asarray(g).astype(dtype), gradients(dtype=float))
    )
    updates, states = run(ox.clip_by_percentile(20.0), rounded, dtype)
    assert states.history.dtype == jnp.float32
    norms = norms_of(rounded)
    for t in range(STEPS):
        clip = np.percentile(norms[: t + 1], 20)
        scale = min(1.0, clip / norms[t])
        for name in SHAPES:
            expected = jnp.asarray(np.float32(scale * rounded[name][t])).astype(dtype)
            actual = updates[name][t]
            assert actual.dtype == dtype
            # A rounding of the nearest number, once.
            np.testing.assert_allclose(
                np.float32(actual), np.float32(expected), rtol=tolerance
            )
            same = np.asarray(actual) == np.asarray(expected)
            assert same.mean() > 0.9
        emitted = norms_of(
            {name: np.repeat(wide(updates)[name][t][None], STEPS, 0) for name in SHAPES}
        )[0]
        assert emitted <= clip * (1 + tolerance)


def test_nothing_emitted_is_above_its_clip():
    grads = gradients(3)
    norms = norms_of(wide(grads))
    updates, _ = run(ox.clip_by_percentile(10.0), grads)
    clips = [np.percentile(norms[: t + 1], 10) for t in range(STEPS)]
    emitted = norms_of(wide(updates))
    assert (emitted <= np.asarray(clips) * (1 + 1e-6)).all()
    assert (emitted[1:] < norms[1:] * 0.99).mean() > 0.7


def test_zero_gradients_stay_zero():
    tx = ox.clip_by_percentile()
    state = tx.init(jnp.zeros(3))
    for _ in range(3):
        updates, state = tx.update(jnp.zeros(3), state)
        np.testing.assert_array_equal(updates, jnp.zeros(3))
    updates, _ = tx.update(jnp.ones(3), state)
    assert np.isfinite(updates).all()


def test_it_trains_through_a_spike_that_plain_sgd_does_not_survive():
    def end(tx):
        params = jnp.full(4, 5.0)
        state = tx.init(params)
        for step in range(60):
            grads = params * (1e4 if step == 40 else 1)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return float(jnp.abs(params).max())

    assert end(optax.sgd(0.1)) > 1
    assert end(optax.chain(ox.clip_by_percentile(50.0), optax.sgd(0.1))) < 0.1


def test_float64(x64):
    grads = gradients(dtype=np.float64)
    norms = norms_of(grads)
    updates, states = run(ox.clip_by_percentile(33.3), grads, jnp.float64)
    assert states.history.dtype == jnp.float64
    scale = min(1.0, np.percentile(norms, 33.3) / norms[-1])
    np.testing.assert_allclose(updates["a"][-1], scale * grads["a"][-1], rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"percentile": -1}, ValueError, r"`percentile` must be in \[0, 100\], got -1"),
        ({"percentile": 101.0}, ValueError, "`percentile` must be in"),
        ({"percentile": "10"}, TypeError, "`percentile` must be a real number"),
        ({"window": 0}, ValueError, "`window` must be >= 1, got 0"),
        ({"window": 2.5}, TypeError, "`window` must be an int"),
        ({"window": True}, TypeError, "`window` must be an int"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.clip_by_percentile(**arguments)


def test_the_window_is_static_under_inject_hyperparams():
    with pytest.raises(TypeError, match="name it in `static_args`"):
        optax.inject_hyperparams(ox.clip_by_percentile)(20.0, window=8).init(
            jnp.zeros(2)
        )
    tx = optax.inject_hyperparams(ox.clip_by_percentile, static_args=("window",))(
        20.0, window=8
    )
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))
    np.testing.assert_array_equal(updates, jnp.ones(2))


def test_norms_beyond_float32_are_taken_in_double_precision(x64):
    grads = jnp.array([1e40, 0.0])
    tx = ox.clip_by_percentile(50)
    updates, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(updates, grads)
