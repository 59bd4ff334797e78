"""Deep Gradient Compression and PowerSGD against what their papers write."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox

from communication.test_mean import keep_top
from communication.workers import SHAPES, N, gradients, run
from specs import spec

STEPS = 20
RATE = 0.1


def dgc(**options):
    return ox.deep_gradient_compression(
        RATE, **{"density": 0.1, "axis_name": "data", "workers": N, **options}
    )


OVER_TWO = {
    "axis_name": "data",
    "workers": 2,
    "state_specs": lambda state: ox.worker_specs(state, "data"),
    "supports": {"descent"},
}
SPECS = [
    spec(
        ox.deep_gradient_compression,
        learning_rate=0.1,
        momentum=0.9,
        schedules=("learning_rate", "momentum"),
        static={"density": 0.5, "axis_name": "data", "workers": 2},
        buffers=4,
        temporaries=20,
        **OVER_TWO,
    ),
    spec(
        ox.power_sgd,
        learning_rate=0.1,
        momentum=0.9,
        schedules=("learning_rate", "momentum"),
        static={"axis_name": "data", "workers": 2},
        buffers=4,
        temporaries=20,
        **OVER_TWO,
    ),
]


def oracle(grads, density, *, m=0.9, nesterov=False, masking=True, clip=None):
    """Updates of every step."""
    u = {name: np.zeros((N, *shape)) for name, shape in SHAPES.items()}
    v = {name: np.zeros((N, *shape)) for name, shape in SHAPES.items()}
    trace = np.zeros(SHAPES["b"])
    for t in range(STEPS):
        g = {name: grads[name][t].astype(np.float64) for name in SHAPES}
        if clip is not None:
            for i in range(N):
                norm = np.sqrt(sum((g[name][i] ** 2).sum() for name in SHAPES))
                for name in SHAPES:
                    g[name][i] *= min(1, clip / np.sqrt(N) / norm)
        out = {}
        for name in ("e", "w"):
            u[name] = m * (u[name] + g[name]) if nesterov else m * u[name] + g[name]
            v[name] += u[name] + (g[name] if nesterov else 0)
            d = density(t) if callable(density) else density
            sent = np.stack([keep_top(x, d) for x in v[name]])
            out[name] = -RATE * sent.mean(0)
            v[name] -= sent
            if masking:
                u[name][sent != 0] = 0
        mean = g["b"].mean(0)
        trace = m * (trace + mean) if nesterov else m * trace + mean
        out["b"] = -RATE * (trace + mean if nesterov else trace)
        yield out


@pytest.mark.daily("{'nesterov': True}", "{'masking': False}", "{'clip': 1.0}")
@pytest.mark.parametrize(
    "options",
    [{}, {"nesterov": True}, {"masking": False}, {"clip": 1.0}, {"momentum": 0.5}],
    ids=str,
)
def test_oracle(options):
    grads = gradients(STEPS)
    found, _ = run(dgc(**options), grads)
    written = {"m" if k == "momentum" else k: v for k, v in options.items()}
    for t, expected in enumerate(oracle(grads, 0.1, **written)):
        for name in SHAPES:
            off = np.abs(found[name][t] - expected[name]) > 1e-5
            # Where float32 and float64 are halfway between two numbers of bfloat16.
            assert off.sum() <= 2, (t, name)
            assert np.abs(found[name][t] - expected[name]).max() < 2e-3


@pytest.mark.nightly
def test_the_density_falls_during_the_warm_up():
    grads = gradients(STEPS)
    found, _ = run(dgc(density=0.003, warmup_steps=8), grads)
    sent = [np.count_nonzero(u) for u in found["e"]]
    # 25, 6.25, 1.5625 and 0.4 % for two steps each, and then 0.3 %.
    at_most = [275] * 2 + [69] * 2 + [18] * 2 + [5] * 2 + [4] * 12
    assert all(s <= N * k for s, k in zip(sent, at_most, strict=True))
    assert all(s >= k for s, k in zip(sent, at_most, strict=True))


@pytest.mark.parametrize("nesterov", [False, True])
def test_all_of_it_is_sgd_with_momentum(nesterov):
    grads = gradients(STEPS)
    found, _ = run(dgc(density=1.0, masking=False, nesterov=nesterov), grads)
    tx = optax.sgd(RATE, momentum=0.9, nesterov=nesterov)
    means = jax.tree.map(lambda g: g.mean(axis=1), grads)
    kept = tx.init(jax.tree.map(lambda g: jnp.zeros(g.shape[1:]), means))
    for t in range(STEPS):
        updates, kept = tx.update(jax.tree.map(lambda g, t=t: g[t], means), kept)
        for name in SHAPES:
            np.testing.assert_allclose(found[name][t], updates[name], atol=1e-5)


def test_all_of_it_masked_is_plain_sgd():
    grads = gradients(3)
    found, _ = run(dgc(density=1.0), grads)
    for name in ("e", "w"):
        expected = -RATE * grads[name].mean(axis=1)
        np.testing.assert_allclose(found[name], expected, atol=1e-6)


def test_a_number_that_is_not_finite_skips_the_step():
    grads = gradients(3)
    grads["w"][1, 2, 0, 0] = np.nan
    found, _ = run(dgc(), grads)
    for name in SHAPES:
        np.testing.assert_array_equal(found[name][1], 0)
        assert np.isfinite(found[name]).all()
    without = jax.tree.map(lambda g: g[[0, 2]], grads)
    expected, _ = run(dgc(), without)
    for name in SHAPES:
        np.testing.assert_array_equal(found[name][[0, 2]], expected[name])


def test_power_sgd_is_momentum_after_a_low_rank_mean():
    shapes = {"b": (5,), "w": (40, 30)}
    grads = gradients(STEPS, shapes=shapes)
    tx = ox.power_sgd(0.1, rank=3, momentum=0.9, axis_name="data", workers=N, key=1)
    found, _ = run(tx, grads)
    mean = ox.compressed_mean(ox.compressors.low_rank(3, key=1), "data", workers=N)
    means, _ = run(mean, grads)
    trace = dict.fromkeys(shapes, 0)
    for t in range(STEPS):
        for name in shapes:
            trace[name] = 0.9 * trace[name] + means[name][t]
            np.testing.assert_allclose(found[name][t], -0.1 * trace[name], atol=1e-5)


def test_power_sgd_starts_with_dense_means():
    shapes = {"w": (40, 30)}
    grads = gradients(5, shapes=shapes)
    options = {"axis_name": "data", "workers": N, "momentum": 0.0}
    found, _ = run(ox.power_sgd(0.1, start_step=3, **options), grads)
    means = grads["w"].mean(axis=1)
    np.testing.assert_allclose(found["w"][:3], -0.1 * means[:3], atol=1e-6)
    late, _ = run(ox.power_sgd(0.1, **options), {"w": grads["w"][3:]})
    np.testing.assert_allclose(found["w"][3:], late["w"], atol=1e-6)
    with pytest.raises(ValueError, match="`start_step` must be >= 0, got -1"):
        ox.power_sgd(0.1, start_step=-1, **options)
    with pytest.raises(TypeError, match=r"`start_step` must be an int, got 1\.0"):
        ox.power_sgd(0.1, start_step=1.0, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, r"`density` must be in \(0, 1\], got 0.0"),
        ({"momentum": 1.0}, "`momentum` must be in"),
        ({"clip": 0.0}, "`clip` must be finite and > 0, got 0.0"),
        ({"warmup_steps": -1}, "`warmup_steps` must be >= 0, got -1"),
        ({"workers": 0}, "`workers` must be >= 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        dgc(**options)
