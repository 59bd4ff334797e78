"""Clipping by z-scores against the equations of the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from clipping.test_percentile import SHAPES, STEPS, norms_of, run, wide

import optax_extras as ox

from specs import spec

SPECS = [
    spec(
        ox.clip_by_zscore,
        threshold=2.5,
        decay=0.97,
        static={"warmup": 1},
        temporaries=1,
        supports={"complex", "complex_as_real"},
    )
]


def gradients(seed=0, dtype=np.float32, spikes=(30, 31, 45, 50)):
    """Gradients of one size, and of 20 times that in some steps."""
    rng = np.random.default_rng(seed)
    size = np.ones(STEPS)
    size[list(spikes)] = 20
    return {
        name: (
            size.reshape(-1, *[1] * len(shape)) * rng.normal(size=(STEPS, *shape))
        ).astype(dtype)
        for name, shape in SHAPES.items()
    }


def oracle(norms, threshold=2.5, decay=0.97, warmup=25):
    """The clip of each step, mean and standard deviation after it, in float64."""
    collected, rows = [], []
    for n in norms:
        clip = n
        if len(collected) < warmup:
            collected.append(n)
            mean, var = np.mean(collected), np.var(collected)
        else:
            sigma = np.sqrt(var)
            z = (n - mean) / (sigma + 1e-6)
            if z > threshold and mean > 0:
                clip = mean + threshold * sigma / (z / threshold)
            mean = decay * mean + (1 - decay) * clip
            var = decay * var + (1 - decay) * (clip - mean) ** 2
        rows.append((clip, mean, np.sqrt(var)))
    return np.asarray(rows).T


@pytest.mark.parametrize(
    ("threshold", "warmup", "decay"),
    [(2.5, 25, 0.97), (1.0, 1, 0.9), (4.0, 2, 0.0), (1.0, 25, 0.97), (2.5, 100, 0.9)],
)
def test_oracle(threshold, warmup, decay):
    grads = gradients()
    norms = norms_of(wide(grads))
    clips, mean, stddev = oracle(norms, threshold, decay, warmup)
    tx = ox.clip_by_zscore(threshold, decay=decay, warmup=warmup)
    updates, states = run(tx, grads)
    for name, g in grads.items():
        scale = (clips / norms).reshape(-1, *[1] * (g.ndim - 1))
        np.testing.assert_allclose(updates[name], scale * g, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(states.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(states.stddev, stddev, rtol=1e-3, atol=1e-5)


def test_oracle_in_double_precision(x64):
    grads = gradients(1, np.float64)
    norms = norms_of(grads)
    clips, mean, stddev = oracle(norms)
    assert (clips < norms).sum() >= 4
    updates, states = run(ox.clip_by_zscore(), grads, jnp.float64)
    np.testing.assert_allclose(norms_of(updates), clips, rtol=1e-12)
    np.testing.assert_allclose(states.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(states.stddev, stddev, rtol=1e-10, atol=1e-13)


def test_the_warm_up_is_that_of_stored_norms():
    """Also far from zero, where a sum of squares would lose all digits."""
    norms = (1e4 + np.random.default_rng(0).normal(size=25)).astype(np.float32)
    tx = ox.clip_by_zscore()
    state = tx.init(jnp.float32(0))
    for norm in norms:
        update, state = tx.update(jnp.asarray(norm), state)
        assert update == norm
    np.testing.assert_allclose(state.mean, norms.astype(np.float64).mean(), rtol=1e-6)
    np.testing.assert_allclose(state.stddev, norms.astype(np.float64).std(), rtol=1e-3)


def test_the_warm_up_may_be_traced():
    grads = {name: g[:20] for name, g in gradients(spikes=(10,)).items()}

    def ends(warmup):
        tx = ox.clip_by_zscore(warmup=warmup)
        state = tx.init({name: jnp.zeros(shape) for name, shape in SHAPES.items()})

        def body(state, grads):
            updates, state = tx.update(grads, state)
            return state, updates

        return jax.lax.scan(body, state, grads)

    several = jax.jit(jax.vmap(ends))(jnp.array([5, 15], jnp.int32))
    for i, warmup in enumerate((5, 15)):
        state, updates = ends(warmup)
        mine = jax.tree.map(lambda x, i=i: x[i], several)
        np.testing.assert_allclose(mine[1]["a"], updates["a"], rtol=1e-5)
        np.testing.assert_allclose(mine[0].mean, state.mean, rtol=1e-5)
        is_clipped = bool((updates["a"][10] != grads["a"][10]).any())
        assert is_clipped == (warmup == 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("step", [10, 40])
def test_what_is_not_finite_passes_and_is_forgotten(bad, step):
    grads = gradients(spikes=(30, 50))
    bad_grads = {name: g.copy() for name, g in grads.items()}
    bad_grads["b"][step, 1] = bad
    tx = ox.clip_by_zscore()
    updates, states = run(tx, bad_grads)
    for name in SHAPES:
        np.testing.assert_array_equal(updates[name][step], bad_grads[name][step])
    assert states.mean[step] == states.mean[step - 1]
    assert states.stddev[step] == states.stddev[step - 1]
    assert states.seen[-1] == STEPS - 1
    assert states.count[-1] == STEPS
    expected, _ = run(tx, {name: np.delete(g, step, 0) for name, g in grads.items()})
    for name in SHAPES:
        np.testing.assert_array_equal(
            np.delete(updates[name], step, 0), expected[name], strict=True
        )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_nothing_emitted_is_above_its_clip(dtype):
    grads = wide(jax.tree.map(lambda g: jnp.asarray(g).astype(dtype), gradients()))
    norms = norms_of(grads)
    clips, _, _ = oracle(norms)
    updates, states = run(ox.clip_by_zscore(), grads, dtype)
    assert updates["a"].dtype == dtype
    assert states.mean.dtype == jnp.float32
    emitted = norms_of(wide(updates))
    half_unit = float(jnp.finfo(dtype).eps) / 2
    assert (emitted <= clips * (1 + half_unit)).all()
    np.testing.assert_allclose(emitted, clips, rtol=half_unit)
    for name, g in grads.items():  # what is not clipped keeps its bits
        same = np.isclose(clips, norms)
        np.testing.assert_array_equal(np.asarray(updates[name])[same], g[same])


def test_norms_of_zero_do_not_stop_all_that_follow():
    tx = ox.clip_by_zscore(warmup=3)
    state = tx.init(jnp.zeros(2))
    for _ in range(5):
        updates, state = tx.update(jnp.zeros(2), state)
        np.testing.assert_array_equal(updates, 0)
    updates, _ = tx.update(jnp.ones(2), state)
    np.testing.assert_array_equal(updates, 1)


def test_large_norms_do_not_overflow():
    tx = ox.clip_by_zscore(warmup=2)
    state = tx.init(jnp.float32(0))
    norms = [1e18, 1.5e19, 1e18, 1e10]
    for norm in norms:
        update, state = tx.update(jnp.float32(norm), state)
        assert np.isfinite(update)
        assert np.isfinite(state.stddev)
    assert state.stddev > 1e18


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
    assert end(optax.chain(ox.clip_by_zscore(), optax.sgd(0.1))) < 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"threshold": 0.0}, ValueError, "`threshold` must be finite and > 0, got 0"),
        ({"decay": 1.0}, ValueError, r"`decay` must be in \[0, 1\)"),
        ({"warmup": 0}, ValueError, "`warmup` must be >= 1"),
        ({"warmup": 2.5}, TypeError, "`warmup` must be an integer"),
        ({"warmup": jnp.ones(2)}, ValueError, "`warmup` must be a scalar"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.clip_by_zscore(**arguments)
