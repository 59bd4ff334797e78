"""Gradient noise: its size, its independence, and what it does not depend on."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from scipy import stats

import optax_extras as ox
from optax_extras._core import gaussian

from specs import SHARED_DRAW, factories, spec

NOISE = {
    "supports": {"random", "complex"},
    "temporaries": SHARED_DRAW,
    "eta": 0.01,
}
SGD = {
    "supports": {"random", "complex", "descent"},
    "learning_rate": 0.1,
    "eta": 0.01,
}
SPECS = [
    spec(ox.add_decayed_noise, **NOISE, gamma=0.55, schedules=("eta",)),
    spec(
        ox.add_decayed_noise,
        "int-gamma",
        **NOISE,
        changes={"formula"},
        static={"gamma": 2},
    ),
    spec(
        ox.noisy_sgd,
        **SGD,
        changes={"formula", "state", "draws"},
        gamma=0.55,
        schedules=("eta", "learning_rate"),
    ),
    spec(
        ox.noisy_sgd,
        "nesterov",
        **SGD,
        temporaries=SHARED_DRAW,
        changes={"formula", "state", "consumers"},
        buffers=1,
        momentum=0.9,
        schedules=("momentum",),
        static={"nesterov": True},
    ),
]


def noise(tree, *, count=0, key=0, eta=1.0, gamma=0.0, **options):
    """What `add_decayed_noise` adds at a step."""
    tx = ox.add_decayed_noise(eta, gamma, key=key, **options)
    state = tx.init(tree)._replace(count=jnp.int32(count))
    return tx.update(jax.tree.map(jnp.zeros_like, tree), state)[0]


@pytest.mark.parametrize("count", [0, 10, 1000])
@pytest.mark.parametrize(("eta", "gamma"), [(0.01, 0.55), (0.3, 2), (1.0, 0.0)])
def test_variance_follows_the_schedule(count, eta, gamma):
    z = np.asarray(noise(jnp.zeros(10**5), count=count, eta=eta, gamma=gamma))
    variance = eta / (1 + count) ** gamma
    assert abs(np.mean(z**2) / variance - 1) < 5.5 * np.sqrt(2 / z.size)
    assert stats.kstest(z / np.sqrt(variance), "norm").pvalue > 1e-6


@pytest.mark.parametrize(
    ("eta", "gamma"),
    [(0.01, 0.55), (0.3, 2), (lambda t: 0.1 * jnp.exp(-0.1 * t), 0.5)],
)
def test_oracle(eta, gamma):
    rng = np.random.default_rng(0)
    tx = ox.add_decayed_noise(eta, gamma, key=5)
    state = tx.init(None)
    for t in range(25):
        g = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=2)}
        grads = jax.tree.map(jnp.float32, g)
        z = gaussian.gaussian_like(
            jnp.uint32([0, 5]), jnp.int32(t), grads, stream="add_decayed_noise"
        )
        updates, state = tx.update(grads, state)
        variance = np.float64(eta(t) if callable(eta) else eta) / (1 + t) ** gamma
        for name in g:
            expected = g[name] + np.sqrt(variance) * np.asarray(z[name], np.float64)
            np.testing.assert_allclose(updates[name], expected, rtol=1e-6, atol=1e-6)
    assert int(state.count) == 25


def test_eta_of_zero_is_the_identity():
    g = jax.random.normal(jax.random.key(0), (100,))
    tx = ox.add_decayed_noise(0.0, key=0)
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], g)


@pytest.mark.parametrize("gamma", [1, 2, 3, 10, np.int32(2), jnp.int32(2)])
def test_integer_gamma_is_finite_at_any_count(gamma):
    for count in (46_340, 10**6, 2**31 - 2):
        z = noise(jnp.zeros(10), count=count, gamma=gamma)
        assert bool(jnp.isfinite(z).all())
        np.testing.assert_array_equal(
            z, noise(jnp.zeros(10), count=count, gamma=float(gamma))
        )


@pytest.mark.daily("axes1-*Auto", "axes2-*Explicit")
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize(
    ("axes", "spec"), [((8,), P("x")), ((8,), P(None, "x")), ((4, 2), P("x", "y"))]
)
def test_the_same_bits_on_one_device_and_on_eight(kind, axes, spec):
    params = jnp.zeros((24, 104))
    expected = np.asarray(jax.jit(noise)(params))
    np.testing.assert_array_equal(expected, noise(params))  # eager
    mesh = jax.make_mesh(axes, ("x", "y")[: len(axes)], axis_types=(kind,) * len(axes))
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, spec)
        sharded = jax.device_put(params, sharding)
        actual = jax.jit(noise, out_shardings=sharding)(sharded)
        np.testing.assert_array_equal(actual, expected)
        np.testing.assert_array_equal(noise(sharded), expected)


def test_other_leaves_do_not_matter():
    a, b = jnp.zeros(5), jnp.zeros((2, 2))
    both = noise({"a": a, "b": b})
    np.testing.assert_array_equal(noise({"b": b})["b"], both["b"])
    np.testing.assert_array_equal(noise({"0": a, "a": a, "b": b})["b"], both["b"])
    masked = optax.masked(
        ox.add_decayed_noise(1.0, 0.0, key=0), {"a": False, "b": True}
    )
    grads = {"a": a, "b": b}
    updates, _ = masked.update(grads, masked.init(grads))
    np.testing.assert_array_equal(updates["b"], both["b"])
    np.testing.assert_array_equal(updates["a"], a)


def test_partition_groups_draw_differently_with_one_key():
    grads = {"a": jnp.zeros(1000), "b": jnp.zeros(1000)}
    tx = optax.partition(
        {name: ox.add_decayed_noise(1.0, 0.0, key=0) for name in "xy"},
        {"a": "x", "b": "y"},
    )
    updates, _ = tx.update(grads, tx.init(grads), grads)
    assert abs(np.corrcoef(updates["a"], updates["b"])[0, 1]) < 5.5 / np.sqrt(1000)


def test_shards_draw_differently_along_the_axis_and_share_a_state():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    tx = ox.add_decayed_noise(1.0, 0.0, key=0, axis_name="data")
    grads = jnp.zeros((8, 10_000))
    state = tx.init(grads)

    def step(grads, state):
        updates, state = tx.update(grads, state)
        return updates, jax.lax.pmean(updates, "data"), state

    updates, mean, after = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(P("data"), P()),
            out_specs=(P("data"), P(), P()),
        )
    )(grads, state)
    correlation = np.corrcoef(updates) - np.eye(8)
    assert np.abs(correlation).max() < 5.5 / np.sqrt(10_000)
    assert abs(np.std(mean) * np.sqrt(8) - 1) < 5.5 / np.sqrt(2 * 10_000)
    np.testing.assert_array_equal(after.key, state.key)
    assert int(after.count) == 1


def test_without_axis_name_shards_draw_alike():
    tx = ox.add_decayed_noise(1.0, 0.0, key=0)
    grads = jnp.zeros((8, 10))
    updates = jax.vmap(lambda g: tx.update(g, tx.init(g))[0], axis_name="x")(grads)
    assert np.ptp(updates, axis=0).max() == 0


def test_axis_name_may_be_several_axes():
    tx = ox.add_decayed_noise(1.0, 0.0, key=0, axis_name=("x", "y"))

    def draw(g):
        return tx.update(g, tx.init(g))[0]

    rows = jax.vmap(jax.vmap(draw, axis_name="y"), axis_name="x")(jnp.zeros((2, 3, 4)))
    assert len(np.unique(rows)) == 24


def test_key_override_is_for_one_step():
    g = jnp.zeros(10)
    tx = ox.add_decayed_noise(1.0, 0.0, key=0)
    other = ox.add_decayed_noise(1.0, 0.0, key=9)
    state = tx.init(g)
    overridden, after = tx.update(g, state, key=jax.random.key(9))
    np.testing.assert_array_equal(overridden, other.update(g, other.init(g))[0])
    np.testing.assert_array_equal(after.key, state.key)
    assert int(after.count) == 1
    chained = optax.chain(tx, optax.scale(1.0))
    np.testing.assert_array_equal(
        chained.update(g, chained.init(g), key=9)[0], overridden
    )
    with pytest.raises(TypeError, match="`key` must be an int"):
        tx.update(g, state, key="a")


def test_vmap_over_parameters_repeats_one_key_and_over_key_does_not():
    params = jnp.zeros((3, 50))
    tx = ox.add_decayed_noise(1.0, 0.0, key=0)
    same = jax.vmap(lambda p: tx.update(p, tx.init(p))[0])(params)
    assert np.ptp(same, axis=0).max() == 0

    def member(params, key):
        tx = ox.add_decayed_noise(1.0, 0.0, key=key)
        return tx.update(params, tx.init(params))[0]

    different = jax.vmap(member)(params, jnp.arange(3))
    assert len(np.unique(different)) == 150


def test_donating_the_state_leaves_the_callers_key_alone():
    for key in (jax.random.key(3), jax.random.PRNGKey(3)):
        tx = ox.add_decayed_noise(key=key)
        step = jax.jit(tx.update, donate_argnums=(0, 1))
        for _ in range(2):
            step(jnp.zeros(3), tx.init(jnp.zeros(3)))
        jax.random.normal(key)


def test_half_precision_rounds_once():
    z32 = noise(jnp.zeros(1000))
    for dtype in (jnp.bfloat16, jnp.float16):
        np.testing.assert_array_equal(noise(jnp.zeros(1000, dtype)), z32.astype(dtype))


def test_noisy_sgd_is_the_chain():
    params = {"w": jnp.ones(4)}
    grads = {"w": jnp.arange(4.0)}
    for momentum, nesterov in ((None, False), (0.9, False), (0.9, True)):
        stages = [ox.add_decayed_noise(0.1, 0.5, key=1)]
        if momentum is not None:
            stages.append(optax.trace(momentum, nesterov))
        expected = optax.chain(*stages, optax.scale_by_learning_rate(0.1))
        tx = ox.noisy_sgd(0.1, 0.1, 0.5, key=1, momentum=momentum, nesterov=nesterov)
        state, other = tx.init(params), expected.init(params)
        for _ in range(20):
            updates, state = tx.update(grads, state, params)
            wanted, other = expected.update(grads, other, params)
            np.testing.assert_allclose(updates["w"], wanted["w"], rtol=1e-6)


def test_annealed_noise_lets_sgd_converge():
    tx = ox.noisy_sgd(0.1, eta=0.1, gamma=1.0, key=0)

    @jax.jit
    def train(params):
        def body(carry, _):
            params, state = carry
            updates, state = tx.update(2 * params, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), length=2000)[0][0]

    assert float(jnp.abs(train(jnp.full(100, 5.0))).max()) < 0.02


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eta": -0.1}, ValueError, "`eta` must be finite and >= 0, got -0.1"),
        ({"eta": float("nan")}, ValueError, "`eta` must be finite and >= 0, got nan"),
        ({"eta": float("inf")}, ValueError, "got inf"),
        ({"eta": True}, TypeError, "`eta` must be a real number, got True"),
        ({"eta": "0.1"}, TypeError, "`eta` must be a real number, got '0.1'"),
        ({"eta": jnp.ones(2)}, ValueError, r"`eta` must be a scalar.*\(2,\)"),
        ({"eta": jnp.bool_(True)}, TypeError, "`eta` must be a real number, got dtype"),
        ({"gamma": float("inf")}, ValueError, "`gamma` must be finite, got inf"),
        ({"gamma": 1j}, TypeError, "`gamma` must be a real number, got 1j"),
        ({"gamma": np.complex64(1)}, TypeError, "`gamma` must be a real number"),
        ({"key": None}, TypeError, "`key` must be an int, .*, got None"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.add_decayed_noise(**{"key": 0, **arguments})


def test_unknown_arguments():
    with pytest.raises(TypeError, match="unexpected keyword argument 'seed'"):
        ox.add_decayed_noise(key=0, seed=1)


KEYED = [
    function
    for function in factories()
    if (key := inspect.signature(function).parameters.get("key"))
    and key.default is key.empty
]


@pytest.mark.parametrize("factory", KEYED, ids=lambda f: f.__name__)
def test_a_factory_without_its_key_says_what_to_pass(factory):
    needed = f"`{factory.__name__}` needs the keyword argument `key`"
    with pytest.raises(TypeError, match=rf"^{needed}: an int, or a key"):
        factory(0.1, 0.1, 0.5, 0)
    with pytest.raises(TypeError, match=f"^{needed}, in place of `seed`: an int"):
        factory(0.1, seed=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": -1}, ValueError, "`learning_rate` must be finite and >= 0"),
        ({"momentum": 1.0}, ValueError, r"`momentum` must be in \[0, 1\).*, got 1.0"),
        ({"nesterov": True}, ValueError, "`nesterov` must be False without `momentum`"),
        ({"nesterov": "no"}, TypeError, "`nesterov` must be True or False, got 'no'"),
    ],
)
def test_bad_arguments_of_noisy_sgd(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.noisy_sgd(**{"learning_rate": 0.1, "key": 0, **arguments})
