"""Matrices of constant norm against the paper's formulas, and on shards and stacks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec as P

import optax_extras as ox

from specs import spec
from wrapped import OF_ADAM, bad_gradients, rows

SUMS = {"draws_do_not_depend_on_sharding": "a norm of shards is summed otherwise"}
SPECS = [
    *rows(ox.hyperball, {}, of_noise=SUMS, temporaries=1),
    spec(
        ox.hyperball,
        "relative",
        learning_rate=0.1,
        static={"inner": optax.adam(0.1)},
        schedules=("learning_rate",),
        buffers=2,
        temporaries=1,
        supports={"complex", "descent"},
        changes={"formula", "sums"},
        expected_failures={
            "learning_rate_of_zero_does_nothing": "vectors have that of optax.adam",
            **{k: why for k, why in OF_ADAM.items() if not k.startswith("inject")},
        },
    ),
]

STEPS = 30
RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.normal(size=(4, 3)), "b": RNG.normal(size=3), "s": np.float64(2.0)}
GRADIENTS = [
    {k: RNG.normal(size=np.shape(p)) + 0.2 for k, p in PARAMS.items()}
    for _ in range(STEPS)
]


def path_of(tx, params=PARAMS, gradients=GRADIENTS, dtype=jnp.float32):
    """The parameters after each step."""

    def cast(tree):
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = cast(params)
    state, path = tx.init(params), []
    for g in gradients:
        params, state = step(params, state, cast(g))
        path.append(jax.tree.map(np.asarray, params))
    return path


def assert_close(found, expected, **tolerance):
    for one, other in zip(found, expected, strict=True):
        for name in other:
            np.testing.assert_allclose(one[name], other[name], **tolerance)


def oracle(rate, momentum=0.9, inner_rate=0.1):
    """Hyperball around SGD with momentum, in float64; no rate is the inner step."""
    params, trace, path = dict(PARAMS), dict.fromkeys(PARAMS, 0.0), []
    radius = np.linalg.norm(PARAMS["w"])
    for t, g in enumerate(GRADIENTS):
        trace = {k: g[k] + momentum * trace[k] for k in PARAMS}
        u = {k: -inner_rate * trace[k] for k in PARAMS}
        params = {k: params[k] + u[k] for k in PARAMS}
        w, step = path[-1]["w"] if path else PARAMS["w"], u["w"]
        if rate is not None:
            now = rate(t) if callable(rate) else rate
            step = now * radius * step / np.linalg.norm(step)
        params["w"] = radius * (w + step) / np.linalg.norm(w + step)
        path.append(params)
    return path


def falling(t):
    return 0.3 / (1 + t)


@pytest.mark.parametrize("rate", [None, 0.0, 0.1, 2.0, falling])
def test_oracle(rate, x64):
    tx = ox.hyperball(optax.sgd(0.1, 0.9), rate)
    expected = oracle(rate)
    assert_close(path_of(tx, dtype=jnp.float64), expected, rtol=1e-9, atol=1e-12)
    with jax.enable_x64(False):
        assert_close(path_of(tx), expected, rtol=1e-4, atol=1e-4)


INNER = {
    "adam": optax.adam(0.1),
    "muon": optax.contrib.muon(0.1),
    "momentum": optax.sgd(1.0, 0.9),
    "noise": ox.noisy_sgd(0.1, 1.0, key=0),
}


@pytest.mark.parametrize("rate", [None, 0.1])
@pytest.mark.parametrize("name", INNER)
def test_norms_stay(name, rate):
    """Within a few units in the last place, after a hundred steps as after one."""
    tx = ox.hyperball(INNER[name], rate)
    rng = np.random.default_rng(1)
    params = {"w": rng.normal(size=(16, 8)), "v": 1e-3 * rng.normal(size=(3, 4, 5))}
    gradients = [
        {k: rng.normal(size=p.shape) for k, p in params.items()} for _ in range(100)
    ]
    path = path_of(tx, params, gradients)
    for k, p in params.items():
        norms = [np.linalg.norm(np.float64(one[k])) for one in path]
        start = np.linalg.norm(np.float64(np.float32(p)))
        np.testing.assert_allclose(norms, start, rtol=4 * np.finfo(np.float32).eps)
        assert np.abs(path[-1][k] - path[0][k]).max() > 0.1 * np.abs(p).max()


def test_norms_of_half_precision_stay_within_their_rounding():
    rng = np.random.default_rng(1)
    params = {"w": rng.normal(size=(16, 16))}
    gradients = [{"w": rng.normal(size=(16, 16))} for _ in range(100)]
    path = path_of(ox.hyperball(optax.adam(1.0), 0.1), params, gradients, jnp.bfloat16)
    norms = [np.linalg.norm(one["w"].astype(np.float64)) for one in path]
    start = np.linalg.norm(np.asarray(params["w"], jnp.bfloat16).astype(np.float64))
    np.testing.assert_allclose(norms, start, rtol=1e-3)


def test_matrices_that_something_else_moved_are_brought_back():
    """The norm that is kept is the first, not the last."""
    params = jnp.asarray(PARAMS["w"], jnp.float32)
    tx = ox.hyperball(optax.sgd(0.1))
    state = tx.init(params)
    for scale in (1.0, 2.0, 0.1):
        grads = jnp.ones_like(params)
        updates, state = tx.update(grads, state, scale * params)
        found = jnp.linalg.norm(scale * params + updates)
        np.testing.assert_allclose(found, jnp.linalg.norm(params), rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "momentum"])
def test_other_leaves_are_those_of_the_optimizer(name):
    found, plain = (path_of(tx) for tx in (ox.hyperball(INNER[name], 0.1), INNER[name]))
    for one, other in zip(found, plain, strict=True):
        for leaf in ("b", "s"):
            np.testing.assert_array_equal(one[leaf], other[leaf])


def test_the_rate_is_the_tangent_of_the_angle():
    """For an update at a right angle."""
    params, grads = jnp.diag(jnp.array([3.0, 4.0])), jnp.array([[0.0, 1.0], [0.0, 0.0]])
    tx = ox.hyperball(optax.sgd(7.0), 0.25)
    updates, _ = tx.update(grads, tx.init(params), params)
    moved = params + updates
    cosine = jnp.sum(moved * params) / 25
    np.testing.assert_allclose(jnp.tan(jnp.arccos(cosine)), 0.25, rtol=1e-4)


def test_the_length_of_the_inner_update_does_not_matter():
    long, short = (path_of(ox.hyperball(optax.sgd(r), 0.1)) for r in (10.0, 1e-3))
    for one, other in zip(long, short, strict=True):
        np.testing.assert_allclose(one["w"], other["w"], rtol=1e-4)


def test_rates_may_be_mapped():
    params = jnp.asarray(PARAMS["w"], jnp.float32)
    grads = jnp.asarray(GRADIENTS[0]["w"], jnp.float32)

    def step(rate):
        tx = ox.hyperball(optax.sgd(1.0), rate)
        return tx.update(grads, tx.init(params), params)[0]

    rates = [0.0, 0.1, 1.0]
    for found, rate in zip(jax.vmap(step)(jnp.array(rates)), rates, strict=True):
        np.testing.assert_allclose(found, step(rate), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [None, 0.1])
def test_a_matrix_of_zeros_is_trained_by_the_optimizer(rate):
    params = {"w": jnp.zeros((2, 3)), "v": jnp.ones((2, 2))}
    grads = jax.tree.map(jnp.ones_like, params)
    tx = ox.hyperball(optax.sgd(0.5), rate)
    updates, state = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["w"], -0.5)
    params = optax.apply_updates(params, updates)
    updates, _ = tx.update(grads, state, params)
    np.testing.assert_array_equal(updates["w"], -0.5)


def test_a_step_back_to_the_origin():
    """It goes on from there."""
    params = jnp.ones((2, 2))
    tx = ox.hyperball(optax.sgd(1.0))
    updates, state = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates, -1)
    updates, _ = tx.update(-params, state, params + updates)
    np.testing.assert_allclose(updates, 1, rtol=1e-6)


def test_gradients_of_zero_leave_matrices():
    params = jnp.asarray(PARAMS["w"], jnp.float32)
    for rate in (None, 0.1):
        tx = ox.hyperball(optax.sgd(0.1), rate)
        updates, _ = tx.update(jnp.zeros_like(params), tx.init(params), params)
        np.testing.assert_allclose(updates, 0, atol=1e-6)


def norms_of(tree):
    return {k: float(jnp.linalg.norm(jnp.asarray(v))) for k, v in tree.items()}


@pytest.mark.parametrize(
    ("mask", "kept"),
    [
        (None, {"w"}),
        ({"w": False, "b": True, "s": False}, {"b"}),
        (lambda params: {k: k != "w" for k in params}, {"b", "s"}),
        (False, set()),
    ],
    ids=["None", "tree", "function", "prefix"],
)
def test_which_leaves_keep_their_norm(mask, kept):
    tx = ox.hyperball(optax.sgd(0.1), mask=mask)
    after = norms_of(path_of(tx)[0])
    before = norms_of(jax.tree.map(jnp.float32, PARAMS))
    same = {k for k in PARAMS if abs(after[k] - before[k]) < 1e-6}
    assert same == kept


@pytest.mark.parametrize("rate", [None, 0.1])
def test_slices_of_a_stack_keep_norms_of_their_own(rate):
    layers = jnp.asarray(RNG.normal(size=(3, 4, 2)), jnp.float32)
    layers = layers * jnp.array([1.0, 10.0, 100.0])[:, None, None]
    inner = ox.hyperball(optax.sgd(0.1, 0.9), rate)
    tx = ox.stacked(inner, {"layers": 0})
    gradients = [{"layers": RNG.normal(size=(3, 4, 2))} for _ in range(5)]
    found = path_of(tx, {"layers": layers}, gradients)[-1]["layers"]
    apart = {str(i): layer for i, layer in enumerate(layers)}
    grads = [{str(i): g["layers"][i] for i in range(3)} for g in gradients]
    expected = path_of(inner, apart, grads)[-1]
    for i, layer in enumerate(found):
        np.testing.assert_allclose(layer, expected[str(i)], rtol=1e-5, atol=1e-5)
    whole = path_of(inner, {"layers": layers}, gradients)[-1]["layers"]
    assert not np.allclose(np.linalg.norm(whole[0]), np.linalg.norm(layers[0]))


@pytest.mark.daily("0.1")
@pytest.mark.parametrize("rate", [None, 0.1])
def test_shards_have_the_norm_of_the_whole(rate):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    params = jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32)
    grads = jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32)
    tx = ox.hyperball(optax.sgd(0.1), rate)

    @jax.shard_map(mesh=mesh, in_specs=(P("x"), P("x")), out_specs=P("x"))
    def step(params, grads):
        return tx.update(grads, tx.init(params), params)[0]

    expected, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(step(params, grads), expected, rtol=1e-5, atol=1e-6)


def test_shards_that_are_not_known_raise():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    tx = ox.hyperball(optax.sgd(0.1))
    params = jnp.ones((8, 3))

    @jax.shard_map(mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False)
    def step(params):
        return tx.update(params, tx.init(params), params)[0]

    with pytest.raises(ValueError, match="got `check_vma=False`"):
        step(params)


@pytest.mark.daily("0.1")
@pytest.mark.parametrize("rate", [None, 0.1])
def test_workers_that_train_apart_have_norms_of_their_own(rate):
    """Their state varies with them."""
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    params = jnp.asarray(RNG.normal(size=(4, 8, 3)), jnp.float32)
    grads = jnp.asarray(RNG.normal(size=(4, 8, 3)), jnp.float32)
    tx = ox.hyperball(optax.sgd(0.1), rate)
    state = jax.vmap(tx.init)(params)

    @jax.shard_map(mesh=mesh, in_specs=(P("x"), P("x"), P("x")), out_specs=P("x"))
    def step(params, grads, state):
        params, grads, state = jax.tree.map(lambda x: x[0], (params, grads, state))
        return tx.update(grads, state, params)[0][None]

    expected = jax.vmap(lambda g, s, p: tx.update(g, s, p)[0])(grads, state, params)
    found = step(params, grads, state)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_leaf_without_a_gradient_and_extra_arguments():
    def update(grads, state, params=None, *, value):
        del state, params
        return jax.tree.map(lambda g: -value * g, grads), optax.EmptyState()

    params = {"a": jnp.eye(2), "b": jnp.ones((2, 2)), "c": jnp.ones(2)}
    grads = {"a": jnp.ones((2, 2)), "b": None, "c": jnp.ones(2)}
    inner = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    tx = ox.hyperball(inner)
    updates, _ = tx.update(grads, tx.init(params), params, value=3.0)
    assert updates["b"] is None
    np.testing.assert_array_equal(updates["c"], -3)
    adam = ox.hyperball(optax.adam(0.1), 0.1)
    updates, state = adam.update(grads, adam.init(params), params)
    assert updates["b"] is None
    assert jax.tree.structure(state) == jax.tree.structure(adam.init(params))


def test_the_count_of_its_schedule_is_found_beside_others():
    tx = ox.hyperball(optax.adam(0.1), falling)
    state = optax.tree.set(tx.init(jnp.eye(2)), count=jnp.int32(7))
    counts = [int(x) for _, x in optax.tree.get_all_with_path(state, "count")]
    assert counts == [7, 7]
    updates, _ = tx.update(jnp.ones((2, 2)), state, jnp.eye(2))
    fixed = ox.hyperball(optax.adam(0.1), falling(7))
    expected, _ = fixed.update(jnp.ones((2, 2)), state, jnp.eye(2))
    np.testing.assert_allclose(updates, expected, rtol=1e-6)


def test_state_bytes():
    inner = optax.adam(0.1)
    params = {"w": jnp.ones((30, 40)), "b": jnp.ones(40, jnp.bfloat16)}

    def size(tx):
        return sum(x.nbytes for x in jax.tree.leaves(tx.init(params)))

    assert size(ox.hyperball(inner, 0.1)) == size(inner) + 4 + 2 * 4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"learning_rate": -0.1},
            ValueError,
            "`learning_rate` must be finite and >= 0",
        ),
        ({"learning_rate": "1"}, TypeError, "`learning_rate` must be a real number"),
        ({"inner": 0.1}, TypeError, "`inner` must be a gradient transformation"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.hyperball(**{"inner": optax.adam(0.1), **arguments})


@bad_gradients
def test_bad_gradients(bad, error, message):
    params = {"w": jnp.ones((2, 3))}
    tx = ox.hyperball(optax.adam(0.1))
    with pytest.raises(error, match=message):
        tx.update(bad, tx.init(params), params)


def test_what_init_and_update_refuse():
    tx, params = ox.hyperball(optax.sgd(0.1)), {"w": jnp.ones((2, 3))}
    with pytest.raises(
        TypeError, match=r"`params` must have floating-point or complex"
    ):
        tx.init({"w": jnp.ones((2, 3), int)})
    with pytest.raises(
        ValueError, match="`params` must be given to `update` of `hyper"
    ):
        tx.update(params, tx.init(params))
    tx = ox.hyperball(optax.sgd(0.1), mask={"w": 1})
    with pytest.raises(TypeError, match="`mask` must be True or False, got 1"):
        tx.update(params, tx.init(params), params)
