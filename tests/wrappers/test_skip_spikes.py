"""Steps left out: exactly the bad ones, and without a trace in what remains.

A run is one scan over steps; the step at which something bad happens is an argument of
it, so one program makes all runs.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras._core import leaves
from optax_extras.compressors import quantized

from specs import spec

INNER = {
    "adam": optax.adam(0.1),
    "sgd": optax.sgd(0.1, momentum=0.9),
    "noisy_sgd": ox.noisy_sgd(0.1, key=7),
    "add_noise": optax.chain(
        optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.1)
    ),
}
SUPPORTS = {"complex", "descent"}
OF_OPTAX = {
    "none_gradient": "optax.adam and optax.sgd take no None beside a parameter",
    "gradients_of_another_dtype": "the moments of optax take the gradients' dtype",
}
SPECS = [
    spec(
        ox.skip_spikes,
        threshold=6.0,
        static={"inner": ox.momentum_sgd(0.1, 0.9)},
        buffers=1,
        temporaries=2,
        supports={*SUPPORTS, "complex_as_real"},
    ),
    spec(
        ox.skip_spikes,
        "adam",
        threshold=6.0,
        static={"inner": INNER["adam"]},
        buffers=2,
        temporaries=2,
        supports=SUPPORTS,
        changes={"formula", "state"},
        expected_failures={
            **OF_OPTAX,
            "strict_dtype_promotion": "optax.adam raises a float to its count",
            "zero_gradients_in_half_precision": "the eps of optax.adam is 0 in float16",
        },
    ),
    spec(
        ox.skip_spikes,
        "sgd",
        threshold=6.0,
        static={"inner": INNER["sgd"]},
        buffers=1,
        temporaries=2,
        supports={*SUPPORTS, "complex_as_real"},
        changes={"formula", "state"},
        expected_failures=OF_OPTAX,
    ),
    spec(
        ox.skip_spikes,
        "noisy_sgd",
        threshold=6.0,
        static={"inner": INNER["noisy_sgd"]},
        temporaries=1,
        supports=SUPPORTS,
        changes={"state"},
    ),
]

STEPS, WARMUP = 200, 32
NEVER = -1
BAD = {"nan": np.nan, "inf": np.inf, "spike": 10.0}


def parameters(dtype=jnp.float32):
    """Leaves of several shapes; one parameter is −0."""
    params = {"w": jnp.ones((4, 3)), "b": jnp.array([-0.0, 1.0]), "s": jnp.ones(())}
    return jax.tree.map(lambda p: p.astype(dtype), params)


def gradients(steps=STEPS, dtype=jnp.float32, seed=0):
    """Gradients of all steps, of one size."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=(steps, *p.shape)), dtype), parameters()
    )


def spoiled(grads, is_bad, kind):
    """Gradients with one element that is not finite, or all ten times as large."""
    size = jnp.where(is_bad & ~jnp.isfinite(kind) | ~is_bad, 1, kind)
    grads = jax.tree.map(lambda g: g * size.astype(g.dtype), grads)
    b = grads["b"]
    other = b.at[1].set(jnp.asarray(kind, b.dtype))
    return {**grads, "b": jnp.where(is_bad & ~jnp.isfinite(kind), other, b)}


def run_of(tx, grads, params):
    """A function of what is bad, of the step where it is, and of one that is absent."""

    def run(kind, bad, absent):
        def body(carry, entry):
            step, grads = entry
            params, state = carry
            now = spoiled(grads, step == bad, kind)
            updates, new = tx.update(now, state, params)
            after = optax.apply_updates(params, updates), new
            return leaves.chosen(step == absent, carry, after), None

        steps = jnp.arange(len(grads["b"]))
        return jax.lax.scan(body, (params, tx.init(params)), (steps, grads))[0]

    return run


def words(tree):
    """The bits of all leaves; equal numbers may differ in the sign of a zero."""
    leaves = []
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaves.append(np.asarray(leaf).tobytes())
    return leaves


@cache
def every_step(name):
    """Runs with each bad gradient at each step, beside those without that step."""
    tx = ox.skip_spikes(INNER[name], window=64, warmup=WARMUP)
    run = run_of(tx, gradients(), parameters())
    run = jax.jit(jax.vmap(run))
    steps, never = jnp.arange(STEPS), jnp.full(STEPS, NEVER)
    bad = {kind: run(jnp.full(STEPS, x), steps, never) for kind, x in BAD.items()}
    # In the same place of the batch: vectorised code ends in scalar code.
    return bad, run(jnp.ones(STEPS), never, steps)


SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("add_noise", "sgd", "noisy_sgd")
]


@pytest.mark.parametrize("name", ["adam", *SLOW])
@pytest.mark.parametrize("kind", BAD)
def test_one_step_is_lost_wherever_it_comes_and_nothing_else_changes(name, kind):
    """Before the warm-up is over, nobody can know what is a spike; NaN always."""
    first = WARMUP if kind == "spike" else 0
    bad, absent = every_step(name)
    (params, state), (other_params, other) = jax.tree.map(
        lambda x: x[first:], (bad[kind], absent)
    )
    np.testing.assert_array_equal(state.skipped, 1)
    np.testing.assert_array_equal(other.skipped, 0)
    assert words(params) == words(other_params)
    assert words(state.inner_state) == words(other.inner_state)
    assert words(state.window) == words(other.window)
    assert words(state.filled) == words(other.filled)
    assert np.isfinite(state.window).all()
    last = np.arange(first, STEPS) == STEPS - 1
    np.testing.assert_array_equal(state.consecutive, last)
    np.testing.assert_array_equal(state.spikes, last & (kind == "spike"))


def test_the_run_without_the_batch_is_that_of_a_loop():
    """The scan above leaves a step out by selection; here it is not there at all."""
    tx = ox.skip_spikes(INNER["adam"], warmup=WARMUP)
    grads, params = gradients(), parameters()
    params_of_scan, _ = jax.jit(run_of(tx, grads, params))(np.nan, 150, NEVER)
    update = jax.jit(tx.update)
    state = tx.init(params)
    for step in range(STEPS):
        if step != 150:
            now = jax.tree.map(lambda g, step=step: g[step], grads)
            updates, state = update(now, state, params)
            params = optax.apply_updates(params, updates)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        params,
        params_of_scan,
    )


def step_by_step(tx, scales, values=None):
    """States after gradients of these norms."""
    params = {"w": jnp.ones(2)}
    state = tx.init(params)
    update = jax.jit(tx.update)
    states = []
    for i, scale in enumerate(scales):
        extra = {} if values is None else {"value": jnp.float32(values[i])}
        grads = {"w": jnp.array([scale, 0.0], jnp.float32)}
        _, state = update(grads, state, params, **extra)
        states.append(state)
    return states


def test_scores_are_those_of_numpy():
    norms = np.exp(np.random.default_rng(0).normal(size=80) / 2)
    states = step_by_step(
        ox.skip_spikes(INNER["sgd"], window=20, warmup=5, threshold=2.5), norms
    )
    window, skipped = [], 0
    for t, norm in enumerate(np.float32(norms).astype(float)):
        z = 0.0
        if len(window) >= 5:
            median = np.median(window)
            mad = np.median(np.abs(np.array(window) - median))
            z = (norm - median) / max(1.4826 * mad, 0.2 * median)
        np.testing.assert_allclose(states[t].z, z, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(states[t].norm, norm, rtol=1e-6)
        if z > 2.5:
            skipped += 1
        else:
            window = [*window, norm][-20:]
        assert states[t].skipped == skipped
        assert states[t].filled[0] == len(window)
        np.testing.assert_allclose(
            states[t].window[0, 20 - len(window) :], window, rtol=1e-6
        )
    assert 3 < skipped < 30


def test_norms_that_do_not_vary_are_no_alarm():
    """Neither do they make one of a norm that is twice as large."""
    states = step_by_step(ox.skip_spikes(INNER["sgd"]), [1.0] * 50 + [2.0, 2.3])
    assert states[-2].skipped == 0
    np.testing.assert_allclose(states[-2].z, 5.0, rtol=1e-6)
    assert states[-1].skipped == 1


def test_norms_of_zero_are_no_level():
    states = step_by_step(ox.skip_spikes(INNER["sgd"], warmup=4), [0.0] * 10 + [1.0])
    assert states[-1].skipped == 0


def test_small_norms_are_no_spikes():
    states = step_by_step(ox.skip_spikes(INNER["sgd"], warmup=4), [1.0] * 10 + [1e-6])
    assert states[-1].skipped == 0


@pytest.mark.parametrize("max_consecutive", [1, 3, 8])
def test_a_new_level_is_accepted_and_relearned(max_consecutive):
    rng = np.random.default_rng(0)
    old, new = 1 + 0.1 * rng.normal(size=50), 100 + 10 * rng.normal(size=60)
    tx = ox.skip_spikes(INNER["adam"], warmup=20, max_consecutive=max_consecutive)
    states = step_by_step(tx, [*old, *new, 1000.0])
    skipped = np.array([s.skipped for s in states])
    expected = np.minimum(np.arange(1, 61), max_consecutive)
    np.testing.assert_array_equal(skipped[50:110], expected)
    accepted = states[50 + max_consecutive]
    np.testing.assert_array_equal(accepted.filled, [1, 0])
    assert accepted.consecutive == accepted.spikes == 0
    np.testing.assert_allclose(accepted.window[0, -1], new[max_consecutive], rtol=1e-6)
    assert states[-1].skipped == max_consecutive + 1  # 1000 is a spike of the new level
    assert int(states[-1].inner_state[0].count) == 110 - max_consecutive


def test_steps_that_are_not_finite_are_never_taken_and_relearn_nothing():
    nan = [np.nan] * 40
    tx = ox.skip_spikes(INNER["adam"], warmup=20, max_consecutive=3)
    states = step_by_step(tx, [1.0] * 30 + nan + [100.0, np.inf, 100.0, 1.0, 1.0])
    assert states[69].skipped == states[69].consecutive == 40
    assert states[69].spikes == 0
    assert states[72].skipped == 43
    assert states[72].spikes == 2
    assert states[73].consecutive == states[73].spikes == 0
    assert states[-1].skipped == 43
    assert states[-1].filled[0] == 32
    assert states[69].z == np.inf
    assert np.isnan(states[69].norm)


def test_the_loss_is_judged_where_it_is_passed():
    tx = ox.skip_spikes(INNER["sgd"], warmup=10)
    norms = [1.0] * 20
    for bad in (np.nan, np.inf, 10.0):
        losses = [2.0] * 18 + [bad, 2.0]
        states = step_by_step(tx, norms, losses)
        assert [int(s.skipped) for s in states[-3:]] == [0, 1, 1]
        np.testing.assert_array_equal(states[-1].filled, [19, 19])
        np.testing.assert_array_equal(states[-1].window[:, -19:], [[1] * 19, [2] * 19])
    assert states[-2].z == pytest.approx(20)
    negative = step_by_step(tx, norms, [-3.0] * 18 + [-100.0, -2.0])
    assert negative[-1].skipped == 0
    without = step_by_step(tx, norms)
    assert jax.tree.structure(without[-1]) == jax.tree.structure(states[-1])
    np.testing.assert_array_equal(without[-1].filled, [20, 0])


def test_the_loss_and_other_arguments_are_passed_on():
    def update(updates, state, params=None, *, value, other, **extra):
        assert not extra
        return jax.tree.map(lambda u: u * value * other, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    tx = ox.skip_spikes(inner)
    updates, _ = tx.update(
        jnp.ones(2), tx.init(jnp.ones(2)), value=2.0, other=jnp.float32(3)
    )
    np.testing.assert_array_equal(updates, 6)
    with pytest.raises(TypeError, match="value"):  # it is not made up
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), other=1.0)


@pytest.mark.parametrize("name", INNER)
def test_parameters_of_minus_zero_keep_their_sign(name):
    tx = ox.skip_spikes(INNER[name])
    params = {"w": jnp.array([-0.0, 0.0])}
    updates, _ = tx.update({"w": jnp.array([jnp.nan, 1.0])}, tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(np.signbit(moved["w"]), [True, False])


@pytest.mark.daily("nan-float16", "spike-bfloat16")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("kind", ["nan", "spike"])
def test_half_precision(dtype, kind):
    tx = ox.skip_spikes(INNER["adam"], warmup=WARMUP)
    run = jax.jit(run_of(tx, gradients(80, dtype), parameters(dtype)))
    params, state = run(BAD[kind], 60, NEVER)
    other_params, other_state = run(BAD[kind], NEVER, 60)
    assert state.skipped == 1
    assert state.norm.dtype == state.window.dtype == jnp.float32
    assert params["w"].dtype == dtype
    assert words((params, state.inner_state)) == words(
        (other_params, other_state.inner_state)
    )


def test_multi_steps_inside_loses_one_part():
    inner = optax.MultiSteps(optax.sgd(1.0), 2).gradient_transformation()
    tx = ox.skip_spikes(inner)
    params = jnp.zeros(1)
    state = tx.init(params)
    for g in (1.0, np.nan, 3.0, 5.0, np.nan, 7.0):
        updates, state = tx.update(jnp.full(1, g), state, params)
        params = optax.apply_updates(params, updates)
    assert state.skipped == 2
    np.testing.assert_allclose(params, -(2.0 + 6.0))


def test_the_docstring_tells_what_multi_steps_outside_does():
    tx = optax.MultiSteps(ox.skip_spikes(optax.sgd(1.0)), 2)
    params = jnp.zeros(1)
    state, update = tx.init(params), jax.jit(tx.update)
    for g in (1.0, np.nan, 3.0, 5.0, 1.0, 1.0):
        updates, state = update(jnp.full(1, g), state, params)
        params = optax.apply_updates(params, updates)
    assert state.inner_opt_state.skipped == 3


@pytest.mark.daily("nan-*Auto", "spike-*Explicit")
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("bad", ["nan", "spike"])
def test_the_norm_of_sharded_gradients_is_that_of_all(kind, bad):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    tx = ox.skip_spikes(INNER["adam"], warmup=20)
    params = {"w": jnp.ones((16, 2)), "b": jnp.zeros(3)}
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: np.float32(rng.normal(size=(40, *p.shape))), params)
    if bad == "nan":
        grads["w"][30, 11, 1] = np.nan  # on one device
    else:
        grads["w"][30, 11] *= 60  # ten times the norm of all

    def body(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params, state, grads):
        return jax.lax.scan(body, (params, state), grads)[0]

    def placed(tree, specs):
        return jax.tree.map(
            lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)), tree, specs
        )

    alone_params, alone = train(params, tx.init(params), grads)
    with jax.set_mesh(mesh):
        sharded_params = placed(params, {"w": P("x"), "b": P()})
        sharded_params, sharded = train(
            sharded_params,
            tx.init(sharded_params),
            placed(grads, {"w": P(None, "x"), "b": P()}),
        )
    assert int(alone.skipped) == int(sharded.skipped) == 1
    np.testing.assert_allclose(sharded.window, alone.window, rtol=1e-5)
    expected = NamedSharding(mesh, P("x"))
    assert sharded_params["w"].sharding.is_equivalent_to(expected, 2)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        sharded_params,
        alone_params,
    )


def averaging(inner):
    """Means of the workers' gradients, by a collective in the inner transformation."""

    def update(updates, state, params=None, **extra_args):
        return inner.update(jax.lax.pmean(updates, "data"), state, params)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def over_workers(tx, bad_step, kind, *, worker=5, where="gradient", check_vma=True):
    """Parameters and state after 40 steps, one of them bad on one worker alone."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    params = {"w": jnp.ones((4, 3)), "b": jnp.array([-0.0, 1.0])}
    grads = worker_gradients()

    def train(params, state, grads):
        me = jax.lax.axis_index("data")

        def body(carry, entry):
            params, state = carry
            step, grads = entry
            is_bad = (step == bad_step) & (me == worker)
            here = jax.tree.map(lambda g: g[0], grads)
            value = me.astype(jnp.float32)
            if where == "gradient":
                here = spoiled(here, is_bad, kind)
            else:
                value = jnp.where(is_bad, kind, value)
            updates, state = tx.update(here, state, params, value=value)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, state), (jnp.arange(40), grads))[0]

    with jax.set_mesh(mesh):
        state = tx.init(params)
        specs = ox.worker_specs(state, "data")
        run = jax.shard_map(
            train,
            in_specs=(P(), specs, P(None, "data")),
            out_specs=(P(), specs),
            check_vma=check_vma,
        )
        return jax.jit(run)(params, state, grads)


def worker_gradients():
    """Gradients of 40 steps and 8 workers."""
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3), "b": (2,)}
    return {
        name: jnp.asarray(rng.normal(size=(40, 8, *shape)), jnp.float32)
        for name, shape in shapes.items()
    }


@pytest.mark.daily("nan-True", "spike-False")
@pytest.mark.parametrize(
    ("kind", "check_vma"),
    [("nan", True), ("inf", True), ("spike", True), ("nan", False), ("spike", False)],
)
def test_all_workers_agree_on_what_one_of_them_has(kind, check_vma):
    """And a mean over them in the inner transformation is no deadlock."""
    tx = ox.skip_spikes(averaging(INNER["adam"]), warmup=20, axis_name="data")
    params, state = over_workers(tx, 30, BAD[kind], check_vma=check_vma)
    assert state.skipped == 1
    np.testing.assert_array_equal(state.filled, 39)
    assert state.inner_state[0].count == 39
    for leaf in jax.tree.leaves((params, state)):  # the same on every device
        shards = [np.asarray(s.data).tobytes() for s in leaf.addressable_shards]
        assert len(shards) == 8
        assert len(set(shards)) == 1
        assert np.isfinite(leaf).all()


def test_the_largest_norm_and_loss_of_the_workers_are_kept():
    tx = ox.skip_spikes(averaging(INNER["sgd"]), warmup=20, axis_name="data")
    _, state = over_workers(tx, 30, np.nan, where="loss", worker=3)
    assert state.skipped == 1
    np.testing.assert_array_equal(state.window[1, -39:], 7)
    squares = [
        np.sum(np.square(g).reshape(40, 8, -1), 2) for g in worker_gradients().values()
    ]
    norms = np.delete(np.sqrt(sum(squares)).max(1), 30)
    np.testing.assert_allclose(state.window[0, -39:], norms, rtol=1e-6)


def test_compressed_means_inside():
    """Its residuals differ between workers, and a skipped step leaves them alone."""
    inner = optax.chain(
        ox.compressed_mean(quantized(8), "data", workers=8, min_size=1), optax.sgd(0.1)
    )
    tx = ox.skip_spikes(inner, warmup=20, axis_name="data")
    params, state = over_workers(tx, 39, 10.0)
    other_params, other = over_workers(tx, NEVER, 10.0)
    assert state.skipped == 1
    assert other.skipped == 0
    assert state.inner_state[0].count == 39
    assert state.inner_state[0].skipped == 0
    assert np.isfinite(params["w"]).all()
    assert (params["w"] != other_params["w"]).any()


def test_shards_are_summed_without_an_axis_name():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    tx = ox.skip_spikes(INNER["sgd"])
    params = jnp.zeros(16)
    state = tx.init(params)
    specs = jax.tree.map(lambda x: P("x") if x.shape == (16,) else P(), state)
    update = jax.shard_map(
        tx.update, mesh=mesh, in_specs=(P("x"), specs), out_specs=(P("x"), specs)
    )
    updates, after = jax.jit(update)(jnp.ones(16), state)
    assert after.norm == 4
    updates, after = jax.jit(update)(jnp.ones(16).at[9].set(jnp.inf), after)
    assert after.skipped == 1
    np.testing.assert_array_equal(updates, 0)
    assert np.signbit(updates).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"window": 0}, ValueError, "`window` must be >= 1, got 0"),
        ({"window": 1.5}, TypeError, "`window` must be an int"),
        ({"threshold": 0.0}, ValueError, "`threshold` must be finite and > 0, got 0"),
        ({"warmup": 0}, ValueError, "`warmup` must be >= 1"),
        ({"warmup": 129}, ValueError, "`warmup` must be <= `window`, 128, got 129"),
        ({"warmup": 2.5}, TypeError, "`warmup` must be an integer"),
        ({"max_consecutive": 0}, ValueError, "`max_consecutive` must be >= 1"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ox.skip_spikes(optax.sgd(0.1), **arguments)


def test_a_loss_that_is_no_scalar_is_refused():
    tx = ox.skip_spikes(optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"`value` must be a scalar.*\(2,\)"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=jnp.ones(2))


def test_an_axis_that_is_not_there_is_refused():
    tx = ox.skip_spikes(optax.sgd(0.1), axis_name="data")
    with pytest.raises(ValueError, match="`axis_name` must be axes of a surrounding"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_options_may_be_traced():
    def end(threshold, warmup, max_consecutive):
        tx = ox.skip_spikes(
            INNER["sgd"],
            threshold=threshold,
            warmup=warmup,
            max_consecutive=max_consecutive,
        )
        state = tx.init(jnp.zeros(()))

        def body(state, norm):
            return tx.update(norm, state)[::-1]

        norms = jnp.array([1.0] * 10 + [10.0] * 5)
        return jax.lax.scan(body, state, norms)[0].skipped

    options = [(6.0, 5, 3), (60.0, 5, 3), (6.0, 15, 3), (6.0, 5, 9)]
    traced = jax.jit(jax.vmap(end))(*map(jnp.asarray, zip(*options, strict=True)))
    np.testing.assert_array_equal(traced, [3, 0, 0, 5])
