"""Local updates against what their papers write, and what they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import optax_extras as ox
from optax_extras.communication._fragments import divided
from optax_extras.compressors import quantized, top_k

from communication.local import parameters, run, start, step_of
from communication.test_codes import sent
from communication.test_dgc import OVER_TWO
from communication.test_mean import of_the_server
from communication.workers import SHAPES, N, gradients, mesh_of
from specs import spec

STEPS = 20
AXIS = {"axis_name": "data", "workers": N}
INNER = {"inner": optax.sgd(0.1), "axis_name": "data", "workers": 2}
COUNTS = {
    "count_can_be_read_and_set": "the states of both transformations have counts too"
}
SPECS = [
    spec(
        ox.local_updates,
        static={
            **INNER,
            "inner": optax.chain(ox.trace_with_bias_correction(0.5), optax.scale(-0.1)),
            "outer": optax.sgd(0.7),
            "every": 2,
            "compressor": quantized(8),
        },
        buffers=6,
        temporaries=20,
        expected_failures=COUNTS,
        **OVER_TWO,
    ),
    spec(
        ox.diloco,
        learning_rate=0.7,
        momentum=0.9,
        schedules=("learning_rate", "momentum"),
        static={**INNER, "every": 3},
        buffers=4,
        temporaries=20,
        expected_failures=COUNTS,
        **OVER_TWO,
    ),
    spec(
        ox.sparse_loco,
        learning_rate=1.0,
        decay=0.95,
        schedules=("learning_rate",),
        static={**INNER, "every": 3, "density": 0.5},
        buffers=3,
        temporaries=20,
        **OVER_TWO,
    ),
    spec(
        ox.fedavg,
        learning_rate=1.0,
        schedules=("learning_rate",),
        static={**INNER, "every": 3},
        buffers=2,
        temporaries=20,
        **OVER_TWO,
    ),
]


def adamw(theta, g, state, t, rate=0.1, b1=0.9, b2=0.999, eps=1e-8, decay=0.01):
    """A step of AdamW in float64."""
    m, v = state
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    direction = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
    return theta - rate * (direction + decay * theta), (m, v)


def oracle(params, grads, every, ends, weights=None, outer=(0.7, 0.9)):
    """Parameters of each worker after every step."""
    rate, momentum = outer
    reference = {k: np.asarray(x, np.float64) for k, x in params.items()}
    theta = {k: np.stack([x] * N) for k, x in reference.items()}
    state = {k: [(np.zeros_like(x),) * 2] * N for k, x in reference.items()}
    taken, examples = np.zeros(N, int), {k: np.zeros(N) for k in params}
    trace = {k: np.zeros_like(x) for k, x in reference.items()}
    for t in range(len(grads["b"])):
        w = np.ones(N) if weights is None else weights[t]
        for i in range(N):
            if not w[i] or any(not np.isfinite(grads[k][t, i]).all() for k in params):
                continue
            taken[i] += 1
            for k in params:
                examples[k][i] += w[i]
                theta[k][i], state[k][i] = adamw(
                    theta[k][i], np.float64(grads[k][t, i]), state[k][i], taken[i]
                )
        for k in params:
            if (t + 1) % every == ends[k] and examples[k].sum():
                delta = reference[k] - theta[k]
                mean = np.tensordot(examples[k] / examples[k].sum(), delta, 1)
                trace[k] = momentum * trace[k] + mean
                reference[k] = reference[k] - rate * (mean + momentum * trace[k])
                theta[k][:] = reference[k]
                examples[k][:] = 0
        yield {k: x.copy() for k, x in theta.items()}


def close(found, expected, atol=2e-5):
    for t, after in enumerate(expected):
        for name, values in after.items():
            np.testing.assert_allclose(
                found[name][t], values, atol=atol, err_msg=f"{name}, step {t}"
            )


@pytest.mark.daily("2")
@pytest.mark.parametrize("fragments", [1, 2])
def test_diloco(fragments):
    grads, params = gradients(STEPS), parameters(SHAPES)
    tx = ox.diloco(
        optax.adamw(0.1, weight_decay=0.01), every=3, fragments=fragments, **AXIS
    )
    found, _ = run(tx, params, grads)
    # b and w first, as the elements of b and e are fewer than those of w.
    ends = dict.fromkeys(SHAPES, 0) if fragments == 1 else {"b": 0, "e": 1, "w": 0}
    close(found, oracle(params, grads, 3, ends))


def test_sparse_loco():
    """The residual decays, and 2 bits are those of the compressor's own oracle."""
    every, decay, density, steps = 2, 0.9, 0.1, 12
    grads, params = gradients(steps), parameters(SHAPES)
    options = {"density": density, "chunk": 512, **AXIS}
    tx = ox.sparse_loco(optax.sgd(0.1), 0.8, every, decay, **options)
    found, carry = run(tx, params, grads)
    code = top_k(density, chunk=512, bits=2)
    reference = {k: np.asarray(x, np.float64) for k, x in params.items()}
    kept = {k: np.zeros((N, *x.shape)) for k, x in params.items()}
    for t in range(0, steps, every):
        for name in SHAPES:
            learned = 0.1 * np.float64(grads[name][t : t + every]).sum(axis=0)
            total = decay * kept[name] + learned
            passed = total if name == "b" else np.stack([sent(code, x) for x in total])
            kept[name] = total - passed
            reference[name] -= 0.8 * passed.mean(axis=0)
            after = found[name][t + every - 1]
            np.testing.assert_array_equal(after, after[:1].repeat(N, axis=0))
            np.testing.assert_allclose(after[0], reference[name], atol=1e-5)
    for name in ("e", "w"):
        (residual,) = carry[1].residual
        np.testing.assert_allclose(residual.value[name], kept[name], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, False])
def test_an_exchange_at_every_step_is_the_mean_of_inner_steps(check_vma):
    grads, params = gradients(STEPS), parameters(SHAPES)
    inner = optax.adamw(0.1, weight_decay=0.01)
    tx = ox.local_updates(inner, optax.sgd(1.0), 1, **AXIS)
    found, _ = run(tx, params, grads, check_vma=check_vma)
    theta, states = params, [inner.init(params)] * N
    for t in range(STEPS):
        after = []
        for i in range(N):
            own = jax.tree.map(lambda g, t=t, i=i: g[t, i], grads)
            updates, states[i] = inner.update(own, states[i], theta)
            after.append(optax.apply_updates(theta, updates))
        theta = jax.tree.map(lambda *x: sum(x) / N, *after)
        for name in SHAPES:
            expected = np.stack([theta[name]] * N)
            np.testing.assert_allclose(found[name][t], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "compressor",
    [None, top_k(0.05), quantized(4)],
    ids=["dense", "top_k", "4 bit"],
)
def test_nothing_is_lost(compressor):
    """What workers have learned is in the reference, or still to be sent."""
    grads, params = gradients(STEPS), parameters(SHAPES)
    tx = ox.local_updates(
        optax.sgd(0.1), optax.sgd(1.0), 4, compressor=compressor, **AXIS
    )
    _, (_, state) = run(tx, params, grads)
    for name in SHAPES:
        learned = 0.1 * np.float64(grads[name]).mean(axis=1).sum(axis=0)
        moved = np.float64(params[name]) - ox.outer_params(state)[name]
        kept = state.residual[0].value[name] if compressor and name != "b" else None
        rest = 0 if kept is None else np.float64(kept).mean(axis=0)
        server = state._replace(compressor=state.compressor[0])
        rest = rest + of_the_server(server, name)
        np.testing.assert_allclose(moved + rest, learned, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fragments", [1, 2])
def test_workers_that_agree_have_the_same_bits(fragments):
    """Parameters near 0 are those that a sum of floats would not reach."""
    grads = gradients(STEPS)
    params = jax.tree.map(lambda x: x * 1e-6, parameters(SHAPES))
    tx = ox.diloco(optax.adam(0.1), every=4, fragments=fragments, **AXIS)
    first, specs = start(tx, params, mesh_of())
    step = step_of(tx, mesh_of(), specs)
    carry, missed = first, 0
    for t in range(STEPS):
        before = carry
        carry = step(carry, jax.tree.map(lambda g, t=t: g[t], grads), np.ones(N, "f4"))
        params, state = carry
        assert state.adopted.tolist() == [
            (t + 1) % 4 == 4 * number // fragments for number in range(fragments)
        ]
        for adopted, part in zip(state.adopted, state.reference, strict=True):
            for name, reference in part.items():
                if adopted and reference is not None:
                    same = np.broadcast_to(reference, (N, *reference.shape))
                    np.testing.assert_array_equal(params.value[name], same)
                    jump = same - before[0].value[name]
                    missed += (before[0].value[name] + jump != same).sum()
    assert missed > 100  # after `optax.apply_updates`


def test_layers_of_one_size_are_dealt_out():
    layer = {"w": np.zeros((8, 8)), "b": np.zeros(8)}
    parts = divided({f"layer{i}": layer for i in range(8)}, 4)
    owners = [
        [name for name, one in part.items() if one["w"] is not None] for part in parts
    ]
    assert owners == [[f"layer{i}", f"layer{i + 4}"] for i in range(4)]
    assert all((one["w"] is None) == (one["b"] is None) for one in parts[0].values())
    with pytest.raises(ValueError, match="at most the 1 layers of `params`, got 2"):
        divided({"w": np.zeros(3)}, 2)


def local(**options):
    return ox.local_updates(
        **{"inner": optax.sgd(0.1), "outer": optax.sgd(1.0), "every": 2, **AXIS}
        | options
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"inner": 0.1}, TypeError, "`inner` must be a GradientTransformation, got 0"),
        ({"outer": None}, TypeError, "`outer` must be a GradientTransformation"),
        ({"every": 0}, ValueError, "`every` must be >= 1"),
        ({"every": 2.5}, TypeError, "`every` must be an int"),
        ({"fragments": 3}, ValueError, "`fragments` must be at most `every`"),
        ({"decay": 1.5}, ValueError, r"`decay` must be in \[0, 1\], got 1.5"),
        ({"decay": 0.5}, ValueError, "`decay` must be 1 without a `compressor`"),
        ({"min_size": "x"}, ValueError, "`min_size` must be an int >= 0, got 'x'"),
        ({"compressor": 8}, TypeError, "`compressor` must be one of"),
        ({"workers": 0}, ValueError, "`workers` must be >= 1"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        local(**options)


def test_bad_calls():
    params = {"w": jnp.ones(3)}
    with pytest.raises(ValueError, match="`inner` must not exchange anything itself"):
        local(inner=ox.compressed_mean(top_k(0.1), "data", workers=N)).init(
            {"w": jnp.ones(2000)}
        )
    tx = local()
    with pytest.raises(ValueError, match="`params` must be plain parameters"):
        tx.init(ox.worker_params(params, "data", workers=N))
    state = tx.init(params)
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(params, state)
    with pytest.raises(ValueError, match="`axis_name` must name an axis"):
        tx.update(params, state, params)
    with pytest.raises(ValueError, match="in parts, but one has the shape"):
        ox.own_params(ox.worker_params(params, "data", workers=N))
    with pytest.raises(ValueError, match="one part that is of `local_updates`, got 0"):
        ox.outer_params(optax.sgd(0.1).init(params))
    with pytest.raises(ValueError, match="one part that is of `local_updates`, got 2"):
        ox.apply_local_updates(params, params, (state, state))


def test_gradients_of_another_structure():
    params = {"w": {"a": jnp.ones(3)}}
    carry, specs = start(local(), params, mesh_of())
    step = step_of(local(), mesh_of(), specs)
    with pytest.raises(ValueError, match="`updates` must have the structure of `par"):
        step(carry, {"w": None}, jnp.ones(N))


def test_a_leaf_without_an_update_stays():
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    new = ox.apply_local_updates(
        params, {"a": jnp.ones(3), "b": None}, local().init(params)
    )
    assert jax.tree.map(lambda x: float(x[0]), new) == {"a": 2.0, "b": 1.0}


def test_the_update_of_an_exchange_leads_to_the_reference():
    """Of `optax.apply_updates` as well, up to the rounding of a sum."""
    params, mesh = parameters(SHAPES), mesh_of()
    tx = ox.diloco(optax.sgd(0.1), every=2, **AXIS)
    (theta, state), specs = start(tx, params, mesh)
    updates_of = jax.jit(
        jax.shard_map(
            lambda params, state, grads: tx.update(ox.PerWorker(grads), state, params),
            mesh=mesh,
            in_specs=(*specs, P("data")),
            out_specs=specs,
        )
    )
    for t in range(2):
        grads = jax.tree.map(lambda g, t=t: g[t], gradients(2))
        updates, state = updates_of(theta, state, grads)
        theta = optax.apply_updates(theta, updates)
    for name, reference in ox.outer_params(state).items():
        same = np.broadcast_to(reference, (N, *reference.shape))
        np.testing.assert_allclose(theta.value[name], same, atol=1e-6)
