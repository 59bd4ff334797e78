"""Parameters in bfloat16 that move by less than their last place."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras.codecs import bfloat16, blockwise

from specs import spec

BFLOAT16 = jnp.bfloat16
MODES = ["stochastic", "kahan"]


def row(suffix, around, **options):
    """A row around an optimizer; most checks have parameters of float32."""
    return spec(
        ox.keep_bfloat16_params,
        suffix,
        **{
            "around": around,
            "supports": {"descent"},
            "schedules": ("learning_rate",),
            "learning_rate": 0.1,
            "changes": {"formula", "state"} if suffix else (),
            **options,
        },
    )


SPECS = [
    row(
        "",
        optax.adam,
        buffers=2,
        expected_failures={"strict_dtype_promotion": "optax computes b ** count"},
    ),
    row("kahan", ox.momentum_sgd, static={"mode": "kahan"}, buffers=1, temporaries=0.5),
    row(
        "noisy",
        ox.noisy_sgd,
        eta=0.01,
        supports={"descent", "random"},
        changes={"draws", "sums"},
    ),
]


def train(tx, params, steps, gradient=1.0):
    """Parameters after steps of one gradient, by a compiled scan."""

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(lambda p: jnp.full_like(p, gradient), params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[0])
    return run((params, tx.init(params)))


def wide(x):
    return np.asarray(x, np.float64)


@pytest.mark.parametrize("mode", MODES)
def test_small_updates_move_parameters(mode):
    """1 000 steps of 1e-5 from 0.05, where rounding to the nearest moves nothing."""
    params = jnp.full(2**16, 0.05, BFLOAT16)
    plain, _ = train(optax.sgd(1e-5), params, 1000)
    np.testing.assert_array_equal(plain, params)
    found, _ = train(ox.keep_bfloat16_params(optax.sgd(1e-5), mode), params, 1000)
    assert found.dtype == BFLOAT16
    # The parameter itself is 0.050049.
    assert abs(wide(found).mean() - 0.0400) < 0.0005
    spread = wide(found).std()
    assert spread < (0.004 if mode == "stochastic" else 1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_weight_decay_alone_decays(mode):
    tx = ox.keep_bfloat16_params(optax.adamw(1e-4, weight_decay=0.1), mode)
    found, _ = train(tx, jnp.full(2**14, 0.05, BFLOAT16), 2000, gradient=0.0)
    expected = float(BFLOAT16(0.05)) * (1 - 1e-5) ** 2000
    assert abs(wide(found).mean() / expected - 1) < 2e-3


def test_kahan_against_numpy():
    """The sum and its remainder, by rounding of float64 numbers."""
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.normal(size=256), BFLOAT16)
    tx = ox.keep_bfloat16_params(optax.sgd(1.0), "kahan")
    state = tx.init(params)
    p, r = wide(params), np.zeros(256)
    for _ in range(30):
        grads = rng.normal(size=256).astype(np.float32) * 1e-3
        updates, state = tx.update(jnp.asarray(grads), state, params)
        params = optax.apply_updates(params, updates)
        total = wide((r - grads).astype(np.float32))
        new = wide((p + total).astype(np.float32).astype(BFLOAT16))
        r = wide((total - (new - p)).astype(np.float32).astype(BFLOAT16))
        p = new
        np.testing.assert_array_equal(wide(params), p)
        np.testing.assert_array_equal(wide(state.remainders), r)


def test_kahan_adds_up_large_steps_too():
    """A random walk whose steps are larger than the parameter, against float64."""
    rng = np.random.default_rng(0)
    tx = ox.keep_bfloat16_params(optax.scale(1.0), "kahan")
    params = jnp.full(512, 0.01, BFLOAT16)
    state, update = tx.init(params), jax.jit(tx.update)
    exact = wide(params)
    for _ in range(300):
        steps = (0.02 * rng.normal(size=512)).astype(np.float32)
        updates, state = update(jnp.asarray(steps), state, params)
        params = optax.apply_updates(params, updates)
        exact += steps
    error = wide(params) + wide(state.remainders) - exact
    # The rounding of remainders adds up; without that of large updates, 1.6e-4.
    assert np.sqrt(np.mean(error**2)) < 3e-5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 100.0])
def test_the_update_is_the_difference_to_a_bfloat16(mode, size):
    """What `optax.apply_updates` gives is one of the two neighbours of the sum."""
    rng = np.random.default_rng(1)
    params = jnp.asarray(rng.normal(size=4096), BFLOAT16)
    wanted = jnp.asarray(size * rng.normal(size=4096), jnp.float32)
    tx = ox.keep_bfloat16_params(optax.scale(1.0), mode)
    updates, _ = jax.jit(tx.update)(wanted, tx.init(params), params)
    assert updates.dtype == BFLOAT16
    p, u = wide(params), wide(wanted)
    small = np.abs(u) < np.abs(p) / 2
    # An update that is larger than the parameter has places of its own.
    largest = np.where(small, np.abs(p + u), np.maximum(np.abs(p + u), np.abs(u)))
    place = 2.0 ** (np.floor(np.log2(largest)) - 7)
    reached = wide(optax.apply_updates(params, updates))
    assert (np.abs(reached - p - u) <= place * (1.001 + ~small)).all()
    # Other libraries add without a look at the dtype.
    np.testing.assert_array_equal(reached, wide(params + updates))


def test_rounding_at_random_has_the_right_mean():
    params = jnp.full(2**18, 1.0, BFLOAT16)
    tx = ox.keep_bfloat16_params(optax.scale(1.0), key=1)
    wanted = jnp.full(2**18, 0.3 * 2**-7)
    updates, _ = tx.update(wanted, tx.init(params), params)
    new = wide(params + updates)
    assert set(np.unique(new)) == {1.0, 1.0 + 2**-7}
    # Five standard deviations of the mean.
    assert abs((new == 1.0).mean() - 0.7) < 5 * (0.21 / 2**18) ** 0.5


@pytest.mark.parametrize("mode", MODES)
def test_no_update_changes_no_bit(mode):
    params = jnp.asarray([-0.0, 0.0, 1.0, -3.0], BFLOAT16)
    tx = ox.keep_bfloat16_params(optax.scale(1.0), mode)
    updates, state = tx.update(-jnp.zeros(4), tx.init(params), params)
    after = optax.apply_updates(params, updates)
    assert np.asarray(after).tobytes() == np.asarray(params).tobytes()
    if mode == "kahan":
        np.testing.assert_array_equal(wide(state.remainders), 0)


def test_numbers_that_are_not_finite_are_kept():
    params = jnp.ones(4, BFLOAT16)
    wanted = jnp.asarray([np.nan, np.inf, -np.inf, 3.4e38])  # above the largest one
    largest = float(jnp.finfo(BFLOAT16).max)
    for mode in MODES:
        tx = ox.keep_bfloat16_params(optax.scale(1.0), mode)
        updates, _ = tx.update(wanted, tx.init(params), params)
        found = wide(params + updates)
        last = largest if mode == "stochastic" else np.inf  # the nearest, by IEEE 754
        np.testing.assert_array_equal(found, [np.nan, np.inf, -np.inf, last])


def test_the_largest_number_does_not_overflow():
    largest = float(jnp.finfo(BFLOAT16).max)
    params = jnp.full(1000, largest, BFLOAT16)
    tx = ox.keep_bfloat16_params(optax.scale(1.0))
    updates, _ = tx.update(jnp.full(1000, 1e36), tx.init(params), params)
    assert np.isfinite(wide(params + updates)).all()


def test_other_dtypes_are_as_with_the_inner_one():
    params = {
        "half": jnp.ones(3, jnp.float16),
        "full": jnp.ones(3),
        "z": 1j + jnp.ones(2),
    }
    tx = optax.sgd(0.1, momentum=0.9)
    for mode in MODES:
        found, state = train(ox.keep_bfloat16_params(tx, mode), params, 3)
        assert jax.tree.leaves(state.remainders) == []
        expected, _ = train(tx, params, 3)
        for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_allclose(
                x, y, rtol=2e-3 if x.dtype == jnp.float16 else 1e-6
            )


@pytest.mark.parametrize("mode", MODES)
def test_bits_do_not_depend_on_the_mesh_or_jit(mode):
    params = jnp.linspace(0.5, 2.0, 64, dtype=BFLOAT16).reshape(8, 8)
    grads = jnp.sin(jnp.arange(64.0)).reshape(8, 8).astype(BFLOAT16)
    tx = ox.keep_bfloat16_params(optax.sgd(2**-8), mode, key=3)
    alone, _ = tx.update(grads, tx.init(params), params)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind,) * 2)
        with jax.set_mesh(mesh):
            placed = [
                jax.device_put(x, NamedSharding(mesh, P("x", "y")))
                for x in (params, grads)
            ]
            state = tx.init(placed[0])
            sharded, _ = jax.jit(tx.update)(placed[1], state, placed[0])
        assert sharded.sharding.spec == P("x", "y")
        np.testing.assert_array_equal(wide(sharded), wide(alone))


def test_around_a_compressed_state():
    """2 bytes of state for each parameter of 2."""
    codecs = {"mu": blockwise(), "nu": blockwise(signed=False)}
    tx = ox.keep_bfloat16_params(ox.compress_state(optax.adam(0.01), codecs))
    params = jnp.full(4096, 2.0, BFLOAT16)
    found, state = train(tx, params, 100)
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    assert size / params.size < 2.05
    expected, _ = train(optax.adam(0.01), params.astype(jnp.float32), 100)
    assert abs(wide(found).mean() - wide(expected).mean()) < 0.01


def test_the_callers_key_counts():
    params, wanted = jnp.ones(512, BFLOAT16), jnp.full(512, 0.003)
    tx = ox.keep_bfloat16_params(optax.scale(1.0), key=1)
    state = tx.init(params)
    default, _ = tx.update(wanted, state, params)
    same, _ = tx.update(wanted, state, params, key=1)
    other, _ = tx.update(wanted, state, params, key=jax.random.key(2))
    np.testing.assert_array_equal(wide(default), wide(same))
    assert (wide(default) != wide(other)).any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inner": 3}, TypeError, "`inner` must be a gradient transformation"),
        ({"mode": "nearest"}, ValueError, "`mode` must be .* got 'nearest'"),
        ({"key": 1.5}, TypeError, "`key` must be an int"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.keep_bfloat16_params(**{"inner": optax.sgd(0.1), **arguments})


def test_parameters_are_needed():
    tx = ox.keep_bfloat16_params(optax.sgd(0.1))
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_integers_are_refused():
    with pytest.raises(TypeError, match="`params` must have floating-point"):
        ox.keep_bfloat16_params(optax.sgd(0.1)).init(jnp.ones(2, int))


def test_a_codec_of_a_compressed_moment_is_kept_apart():
    """Streams of the two wrappers differ: equal bits would correlate their errors."""
    tx = ox.compress_state(optax.sgd(1.0, momentum=0.9), {"trace": bfloat16()}, key=1)
    params = jnp.zeros(4096, BFLOAT16)
    _, state = tx.update(jnp.full(4096, 1 + 2.0**-8), tx.init(params), params)
    rounded_up = wide(state.inner_state[0].trace) > 1
    outer = ox.keep_bfloat16_params(optax.scale(1.0), key=1)
    updates, _ = outer.update(jnp.full(4096, 2.0**-8), outer.init(params), params + 1)
    raised = wide(updates) > 0
    assert 0.4 < (rounded_up == raised).mean() < 0.6
