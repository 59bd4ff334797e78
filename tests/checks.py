"""What every gradient transformation here must do, as functions of a `Spec`.

A check raises when its `Spec` breaks it; its name without `check_` is its id.
"""

import pickle
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from specs import Spec

STEPS = 4
HALF_AND_SINGLE = (jnp.bfloat16, jnp.float16, jnp.float32, jnp.complex64)
DOUBLE = (jnp.float64, jnp.complex128)


class Pair(NamedTuple):
    """A container, to be found in trees."""

    first: Any
    second: Any


@jax.tree_util.register_pytree_node_class
class Custom:
    """A custom node whose children have no names."""

    def __init__(self, *children):
        """Keeps the children."""
        self.children = children

    def tree_flatten(self):
        """Gives the children."""
        return self.children, None

    @classmethod
    def tree_unflatten(cls, aux, children):
        """Takes them back."""
        del aux
        return cls(*children)


def random_like(tree, seed, dtype=None):
    """Reproducible numbers in the shapes of `tree`."""
    rng = np.random.default_rng(seed)

    def leaf(x):
        own = x.dtype if dtype is None else np.dtype(dtype)
        values = rng.normal(size=x.shape)
        if jnp.issubdtype(own, jnp.complexfloating):
            values = values + 1j * rng.normal(size=x.shape)
        return jnp.asarray(values, own)

    return jax.tree.map(leaf, tree)


def parameters(dtype=jnp.float32):
    """A tree with a 0-d, a zero-size and a None leaf, in every kind of container."""
    shapes = {
        "kernel": jnp.zeros((4, 3), dtype),
        "pair": Pair(jnp.zeros(3, dtype), [jnp.zeros((), dtype), None]),
        "custom": Custom(jnp.zeros((2, 1, 2), dtype)),
        "empty": jnp.zeros((0, 2), dtype),
    }
    return random_like(shapes, seed=0)


def gradients(params, step, dtype=None):
    """The gradients of a step."""
    return random_like(params, seed=100 + step, dtype=dtype)


def run(tx, params, *, jit=True, steps=STEPS, state=None, start=0):
    """Trains on fixed gradients: (params, state, the last updates)."""
    state = tx.init(params) if state is None else state
    update = jax.jit(tx.update) if jit else tx.update
    for step in range(start, start + steps):
        updates, state = update(gradients(params, step), state, params)
        params = optax.apply_updates(params, updates)
    return params, state, updates


def close(actual, expected, rtol=1e-5):
    """Asserts equality to a few ulp, on numbers of the size of one."""
    chex.assert_trees_all_close(actual, expected, rtol=rtol, atol=rtol)


def assert_finite(tree):
    """Asserts that no leaf has a NaN or an infinity."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            assert bool(jnp.isfinite(leaf).all()), jax.tree_util.keystr(path)


def check_state_is_a_fixed_point(spec: Spec):
    tx, params = spec.make(), parameters()
    state = jax.eval_shape(tx.init, params)
    _, after = jax.eval_shape(tx.update, gradients(params, 0), state, params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (
            new.shape,
            new.dtype,
            new.weak_type,
        )
        assert not old.weak_type


def check_state_holds_plain_arrays(spec: Spec):
    for leaf in jax.tree.leaves(spec.make().init(parameters())):
        assert isinstance(leaf, jax.Array)
        assert not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def _check_dtype(spec, dtype):
    params = parameters(dtype)
    state = spec.make().init(params)
    _, after, updates = run(spec.make(), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert_finite(updates)


def check_dtypes(spec: Spec):
    for dtype in HALF_AND_SINGLE:
        _check_dtype(spec, dtype)


def check_double_precision(spec: Spec):
    with jax.enable_x64(True):
        for dtype in (*HALF_AND_SINGLE, *DOUBLE):
            _check_dtype(spec, dtype)


def check_strict_promotion(spec: Spec):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for dtype in (*HALF_AND_SINGLE, *DOUBLE):
            params = parameters(dtype)
            state = spec.make().init(params)
            spec.make().update(gradients(params, 0), state, params)


def check_gradient_dtype_leaves_the_state_alone(spec: Spec):
    params = parameters(jnp.bfloat16)
    state = spec.make().init(params)
    grads = gradients(params, 0, jnp.float32)
    updates, after = spec.make().update(grads, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, grads)


def check_jit_equals_eager(spec: Spec):
    params = parameters()
    close(run(spec.make(), params), run(spec.make(), params, jit=False))


def check_scan_equals_loop(spec: Spec):
    tx, params = spec.make(), parameters()
    stacked = jax.tree.map(
        lambda *x: jnp.stack(x), *(gradients(params, t) for t in range(STEPS))
    )

    def body(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), updates

    (final, state), updates = jax.lax.scan(body, (params, tx.init(params)), stacked)
    last = jax.tree.map(lambda x: x[-1], updates)
    close((final, state, last), run(tx, params))


def check_no_retrace(spec: Spec):
    for name, values in spec.sweep.items():
        traces = []

        @jax.jit
        def step(value, grads, state, params):
            traces.append(None)  # noqa: B023
            return spec.make(**{name: value}).update(grads, state, params)  # noqa: B023

        params = parameters()
        state = spec.make().init(params)
        for t, value in enumerate(values):
            _, state = step(jnp.float32(value), gradients(params, t), state, params)
        assert len(traces) == 1


def check_pure(spec: Spec):
    tx, params = spec.make(), parameters()
    state = tx.init(params)
    before = jax.tree.map(np.array, state)
    first = tx.update(gradients(params, 0), state, params)
    second = tx.update(gradients(params, 0), state, params)
    chex.assert_trees_all_equal(first, second)
    chex.assert_trees_all_equal(state, before)
    chex.assert_trees_all_equal(run(tx, params), run(spec.make(), params))


def check_donation(spec: Spec):
    key = jax.random.key(7)
    tx = spec.make(key=key) if spec.stochastic else spec.make()
    for _ in range(2):
        params = parameters()
        expected = run(tx, params)[:2]

        @jax.jit(donate_argnums=(1, 2))
        def step(grads, params, state):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        state = tx.init(params)
        for t in range(STEPS):
            params, state = step(gradients(params, t), params, state)
        close((params, state), expected)
    assert jax.random.key_data(key).shape == (2,)


def check_no_aliasing(spec: Spec):
    key = jax.random.key(7)
    words = jax.random.key_data(key)
    tx = spec.make(key=words) if spec.stochastic else spec.make()
    words.delete()
    params = parameters()
    state = tx.init(params)
    grads = gradients(params, 0)
    _, after = tx.update(grads, state, params)
    donated = jax.tree.leaves((params, grads))
    for leaf in donated:
        leaf.delete()
    for leaf in jax.tree.leaves((state, after)):
        assert not leaf.is_deleted()


def check_vmap_over_parameters(spec: Spec):
    tx = spec.make()
    members = [random_like(parameters(), seed) for seed in range(3)]
    grads = [gradients(members[0], seed) for seed in range(3)]

    def step(params, grads):
        return tx.update(grads, tx.init(params), params)

    def stack(trees):
        return jax.tree.map(lambda *x: jnp.stack(x), *trees)

    expected = stack([step(p, g) for p, g in zip(members, grads, strict=True)])
    close(jax.vmap(step)(stack(members), stack(grads)), expected)


def check_vmap_over_hyperparameters(spec: Spec):
    params = parameters()
    for name, values in spec.sweep.items():

        def final(value):
            tx = spec.make(**{name: value})  # noqa: B023
            state, outputs = tx.init(params), []
            for t in range(STEPS):
                updates, state = tx.update(gradients(params, t), state, params)
                outputs.append(updates)
            return outputs, state

        batched = jax.vmap(final)(jnp.asarray(values, jnp.float32))
        for i, value in enumerate(values):
            close(jax.tree.map(lambda x: x[i], batched), final(value))  # noqa: B023


def check_vmap_over_key(spec: Spec):
    if not spec.stochastic:
        return
    params = parameters()

    def final(key):
        tx = spec.make(key=key)
        return tx.update(gradients(params, 0), tx.init(params), params)

    for keys in (jnp.arange(3), jax.random.split(jax.random.key(0), 3)):
        batched = jax.vmap(final)(keys)
        for i in range(3):
            close(jax.tree.map(lambda x: x[i], batched), final(keys[i]))  # noqa: B023


def injected(spec):
    return optax.inject_hyperparams(
        spec.factory, static_args=spec.static, hyperparam_dtype=jnp.float32
    )(**spec.arguments)


def check_inject_hyperparams(spec: Spec):
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)):
        params = parameters(dtype)
        expected = run(spec.make(), params)
        final, state, updates = run(injected(spec), params)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(state.inner_state, expected[1])
        close((final, updates), (expected[0], expected[2]), tolerance)
        if dtype == jnp.float32:
            close(state.inner_state, expected[1])
    jax.eval_shape(injected(spec).init, params)


def check_injected_hyperparameters_can_change(spec: Spec):
    params = parameters()
    for name, values in spec.sweep.items():
        if spec.factory.__name__ == "nesterov_lookahead" and name == "momentum":
            continue  # takes effect a step later, which its own tests show
        middle, state, _ = run(injected(spec), params, steps=2)
        state.hyperparams[name] = jnp.float32(values[-1])
        expected = run(
            spec.make(**{name: values[-1]}),
            middle,
            steps=2,
            start=2,
            state=run(spec.make(), params, steps=2)[1],
        )
        actual = run(injected(spec), middle, steps=2, start=2, state=state)
        close((actual[0], actual[2]), (expected[0], expected[2]))


def check_constant_schedule_equals_constant(spec: Spec):
    params = parameters()
    for name in spec.scheduled:
        value = spec.arguments.get(name, 0.05)
        constant = run(spec.make(**{name: value}), params)
        scheduled = run(spec.make(**{name: lambda count: value}), params)  # noqa: B023
        close((scheduled[0], scheduled[2]), (constant[0], constant[2]))


def check_multi_steps(spec: Spec):
    tx = spec.make()
    params = parameters()
    multi = optax.MultiSteps(tx, every_k_schedule=2)
    state, inner = multi.init(params), tx.init(params)
    update = jax.jit(multi.update)
    for t in range(STEPS):
        grads = [gradients(params, 2 * t + i) for i in range(2)]
        for g in grads:
            updates, state = update(g, state, params)
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *grads)
        expected, inner = tx.update(mean, inner, params)
        close(updates, expected)


def check_masked_leaves_stay(spec: Spec):
    params = parameters()
    mask = {"kernel": True, "pair": False, "custom": True, "empty": True}
    tx = optax.masked(spec.make(), mask)
    updates, _ = tx.update(gradients(params, 0), tx.init(params), params)
    chex.assert_trees_all_equal(updates["pair"], gradients(params, 0)["pair"])
    rest = {k: v for k, v in params.items() if k != "pair"}
    grads = {k: v for k, v in gradients(params, 0).items() if k != "pair"}
    tx = spec.make()
    expected, _ = tx.update(grads, tx.init(rest), rest)
    close({k: v for k, v in updates.items() if k != "pair"}, expected)


def check_partition(spec: Spec):
    params = parameters()
    labels = {"kernel": "a", "pair": "b", "custom": "a", "empty": "b"}
    tx = optax.partition({"a": spec.make(), "b": optax.set_to_zero()}, labels)
    alone = optax.masked(spec.make(), {k: v == "a" for k, v in labels.items()})
    updates, _ = tx.update(gradients(params, 0), tx.init(params), params)
    expected, _ = alone.update(gradients(params, 0), alone.init(params), params)
    close(updates["kernel"], expected["kernel"])
    close(updates["pair"], optax.tree.zeros_like(params["pair"]))


def check_apply_if_finite(spec: Spec):
    params = parameters()
    tx = optax.apply_if_finite(spec.make(), max_consecutive_errors=5)
    bad = jax.tree.map(lambda g: g * jnp.nan, gradients(params, 9))
    _, state = tx.update(bad, tx.init(params), params)
    updates, _ = tx.update(gradients(params, 0), state, params)
    close(updates, run(spec.make(), params, steps=1)[2])


def check_extra_args_are_accepted(spec: Spec):
    params = parameters()
    tx = optax.chain(spec.make(), optax.identity())
    expected = run(tx, params, steps=1, jit=False)[2]
    updates, _ = tx.update(
        gradients(params, 0), tx.init(params), params, value=1.0, unknown="x"
    )
    chex.assert_trees_all_equal(updates, expected)


def check_none_gradient_beside_a_parameter(spec: Spec):
    def without(tree):
        return {**tree, "kernel": None}

    params = parameters()
    tx = spec.make()
    _, state, _ = run(tx, params, steps=2)
    updates, after = tx.update(without(gradients(params, 2)), state, params)
    assert updates["kernel"] is None
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    for name in ("trace", "velocity", "mu", "nu", "previous"):
        before = [tree for _, tree in optax.tree.get_all_with_path(state, name)]
        now = [tree for _, tree in optax.tree.get_all_with_path(after, name)]
        assert len(before) == len(now)
        for old, new in zip(before, now, strict=True):
            chex.assert_trees_all_equal(new["kernel"], old["kernel"])
    # The other leaves go on as if the leaf were not there at all.
    alone = without(params)
    state = tx.init(alone)
    full = tx.init(params)
    for t in range(2):
        grads = without(gradients(params, t))
        expected, state = tx.update(grads, state, alone)
        updates, full = tx.update(grads, full, params)
        close(updates, expected)


def check_empty_tree(spec: Spec):
    for params in ({}, (), {"a": None}):
        tx = spec.make()
        updates, _ = tx.update(params, tx.init(params), params)
        assert updates == params


def check_integer_leaves_raise(spec: Spec):
    params = parameters()
    tx = spec.make()
    state = tx.init(params)
    float0 = np.zeros((4, 3), jax.dtypes.float0)
    for bad in (jnp.zeros((4, 3), int), jnp.zeros((4, 3), bool), float0):
        with pytest.raises(TypeError, match=r"floating-point or complex.*'kernel'"):
            tx.update({**gradients(params, 0), "kernel": bad}, state, params)


def check_structure_mismatch_raises(spec: Spec):
    if not spec.buffers:
        return
    params = parameters()
    tx = spec.make()
    state = tx.init(params)
    grads = gradients(params, 0)
    missing = {k: v for k, v in grads.items() if k != "kernel"}
    for bad, message in (
        (missing, r"'kernel'\] is only in the state"),
        ({**grads, "extra": jnp.ones(2)}, r"'extra'\] is only in `updates`"),
        ({**grads, "kernel": jnp.ones((2, 3))}, r"\(2, 3\) at \['kernel'\]"),
        ({**grads, "custom": [jnp.ones((2, 1, 2))]}, "must have the structure"),
    ):
        with pytest.raises(ValueError, match=message):
            tx.update(bad, state, params)


def check_zero_gradients(spec: Spec):
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        params = parameters(dtype)
        tx = spec.make()
        state = tx.init(params)
        zeros = jax.tree.map(jnp.zeros_like, params)
        for grads in (zeros, zeros, gradients(params, 0)):
            updates, state = tx.update(grads, state, params)
            assert_finite((updates, state))


def check_huge_and_tiny_gradients(spec: Spec):
    params = parameters()
    tx = spec.make()
    for scale in (1e15, 1e25, 1e-15, 1e-25):
        state = tx.init(params)
        for t in range(STEPS):
            grads = jax.tree.map(lambda g: g * scale, gradients(params, t))  # noqa: B023
            updates, state = tx.update(grads, state, params)
            assert_finite(updates)
        if scale < 1e19:  # squares that float32 holds do not stop later steps
            updates, _ = tx.update(gradients(params, 9), state, params)
            assert optax.tree.norm(updates) > 0


def check_count_saturates(spec: Spec):
    params = parameters()
    tx = spec.make()
    state = tx.init(params)
    last = np.iinfo(np.int32).max
    state = jax.tree.map_with_path(
        lambda path, value: (
            jnp.int32(last) if getattr(path[-1], "name", None) == "count" else value
        ),
        state,
    )
    updates, state = tx.update(gradients(params, 0), state, params)
    assert_finite((updates, state))
    counts = [value for _, value in optax.tree.get_all_with_path(state, "count")]
    assert counts
    assert all(int(count) == last for count in counts)


def check_resumes_bit_exactly(spec: Spec, tmp_path):
    tx, params = spec.make(), parameters()
    del params["empty"]  # orbax refuses arrays without elements
    middle, state, _ = run(tx, params, steps=2)
    expected = run(tx, middle, steps=2, start=2, state=state)

    leaves, treedef = jax.tree.flatten(state)
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz") as arrays:
        from_arrays = treedef.unflatten([jnp.asarray(arrays[k]) for k in arrays])
    from_pickle = pickle.loads(pickle.dumps(jax.device_get(state)))
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "orbax", state)
        from_orbax = checkpointer.restore(
            tmp_path / "orbax",
            args=ocp.args.PyTreeRestore(
                item=state,
                restore_args=ocp.checkpoint_utils.construct_restore_args(state),
            ),
        )
    for restored in (from_arrays, from_pickle, from_orbax):
        actual = run(spec.make(), middle, steps=2, start=2, state=restored)
        chex.assert_trees_all_equal(actual, expected)


def check_tree_utilities(spec: Spec):
    params = parameters()
    tx = spec.make()
    state = tx.init(params)
    optax.tree.norm(state)
    optax.tree.cast(state, jnp.float32)
    same = optax.tree.map_params(tx, lambda x: x, state)
    chex.assert_trees_all_equal(same, state)


def check_sharding(spec: Spec):
    shapes = {"w": jnp.zeros((16, 8)), "b": jnp.zeros(8), "s": jnp.zeros(())}
    plain = random_like(shapes, 0)
    expected = run(spec.make(), plain)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
        sharding = {
            "w": NamedSharding(mesh, P(None, "x")),
            "b": NamedSharding(mesh, P("x")),
            "s": NamedSharding(mesh, P()),
        }
        with jax.set_mesh(mesh):
            params = jax.device_put(plain, sharding)
            tx = spec.make()
            for leaf in jax.tree.leaves(tx.init(params)):
                if leaf.shape == (16, 8):
                    assert leaf.sharding.is_equivalent_to(sharding["w"], 2)
            state, start = tx.init(params), params

            @jax.jit
            def step(params, state, grads):
                updates, state = tx.update(grads, state, params)  # noqa: B023
                return optax.apply_updates(params, updates), state, updates

            for t in range(STEPS):
                grads = jax.device_put(gradients(start, t), sharding)
                params, state, updates = step(params, state, grads)
            assert params["w"].sharding.is_equivalent_to(sharding["w"], 2)
        close(jax.device_get((params, state, updates)), jax.device_get(expected), 1e-4)


def check_no_tracer_leaks(spec: Spec):
    params = parameters()
    with jax.checking_leaks():
        run(spec.make(), params, steps=2)


def check_scan_inside_shard_map(spec: Spec):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))

    def train(params):
        tx = spec.make()

        def body(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), length=2)[0][0]

    params = {"w": jnp.ones((8, 3)), "b": jnp.ones(8)}
    # Buffers that start as zeros are the same on every device until told otherwise.
    sharded = jax.shard_map(
        train, mesh=mesh, in_specs=(P("x"),), out_specs=P("x"), check_vma=True
    )
    assert_finite(jax.jit(sharded)(params))


def check_learning_rate_of_zero(spec: Spec):
    if "learning_rate" not in spec.arguments:
        return
    params = parameters()
    chex.assert_trees_all_equal(run(spec.make(learning_rate=0.0), params)[0], params)


CHECKS = {
    name.removeprefix("check_"): function
    for name, function in list(globals().items())
    if name.startswith("check_")
}
