"""What can be wrong with a call, and what it is answered with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import optax_extras as ox
from optax_extras.compressors import Compressor, quantized, random_k, sign, top_k

from communication.workers import N, gradients, mesh_of, run, start

PARAMS = {"w": jnp.zeros((40, 30))}


def tx_of(**options):
    return ox.compressed_mean(
        top_k(0.1), **{"axis_name": "data", "workers": N, **options}
    )


def mapped(update, state, in_specs, out_specs=None):
    """Traces an update inside of a `jax.shard_map`."""
    return jax.eval_shape(
        jax.shard_map(
            update,
            mesh=mesh_of(),
            in_specs=in_specs,
            out_specs=P() if out_specs is None else out_specs,
        ),
        PARAMS,
        state,
    )


def test_gradients_that_were_summed_already():
    tx = tx_of()
    state, specs = start(tx, PARAMS, mesh_of())

    def update(params, state):
        grads = jax.grad(lambda p: jnp.sum(p["w"] * jax.lax.axis_index("data")))(params)
        return tx.update(grads, state, params)

    with pytest.raises(ValueError, match=r"those at \['w'\] are the same along 'data'"):
        mapped(update, state, (P(), specs), (P(), specs))


def test_parameters_that_differ():
    tx = tx_of()
    state, specs = start(tx, PARAMS, mesh_of())
    with pytest.raises(ValueError, match="`params` must be the same on all workers"):
        mapped(lambda p, s: tx.update(p, s, p), state, (P("data"), specs), (P(), specs))


def test_an_axis_that_is_not_bound():
    tx = tx_of()
    with pytest.raises(ValueError, match=r"must name an axis of the `jax\.shard_map`"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_a_wrong_number_of_workers():
    tx = tx_of(workers=2)
    state, _ = start(tx, PARAMS, mesh_of(2))
    with pytest.raises(ValueError, match="the axis 'data', which is 4, got 2"):
        mapped(lambda p, s: tx.update(p, s), state, (P("data"), P()))


def test_a_state_that_is_not_in_parts():
    tx = tx_of()
    state, _ = start(tx, PARAMS, mesh_of())

    def update(params, state):
        grads = jax.lax.pcast(params, "data", to="varying")
        return tx.update(grads, state, params)

    with pytest.raises(ValueError, match="use `worker_specs`"):
        mapped(update, state, (P(), P()))


def test_init_inside():
    tx = tx_of()
    with pytest.raises(ValueError, match="`init` must be called outside of"):
        mapped(lambda p, s: tx.init(p), (), (P(), P()))


def test_another_axis():
    state, _ = start(tx_of(), PARAMS, mesh_of())
    with pytest.raises(ValueError, match="that of the state, 'data', got 'model'"):
        ox.worker_specs(state, "model")


def test_matrices_without_gradients_and_without_feedback():
    low_rank = ox.compressors.low_rank(2)
    tx = ox.compressed_mean(low_rank, "data", workers=N, feedback=False)
    state, specs = start(tx, {**PARAMS, "v": PARAMS["w"]}, mesh_of())

    def update(params, state):
        local = jax.lax.pcast(params["w"], "data", to="varying")
        return tx.update({"w": local, "v": None}, state)

    with pytest.raises(ValueError, match=r"factors have 120 elements, got some for 60"):
        mapped(update, state, (P(), specs))


def test_another_structure():
    tx = tx_of()
    state, specs = start(tx, PARAMS, mesh_of())

    def update(params, state):
        grads = jax.lax.pcast({"v": params["w"]}, "data", to="varying")
        return tx.update(grads, state)

    with pytest.raises(ValueError, match="`updates` must have the structure"):
        mapped(update, state, (P(), specs))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tx_of(workers=0), ValueError, "`workers` must be >= 1"),
        (lambda: tx_of(workers=2.0), TypeError, "`workers` must be an integer"),
        (lambda: tx_of(average="some"), ValueError, "`average` must be one of"),
        (lambda: tx_of(min_size=-1), ValueError, "`min_size` must be an int >= 0"),
        (lambda: tx_of(feedback=1), TypeError, "`feedback` must be True or False"),
        (
            lambda: ox.compressed_mean(0.1, "data", workers=2),
            TypeError,
            "`compressor` must be one of `optax_extras.compressors`",
        ),
        (lambda: top_k(0), ValueError, r"`density` must be in \(0, 1\], got 0"),
        (lambda: top_k(1.5), ValueError, "got 1.5"),
        (lambda: top_k({3: 0.1}), ValueError, "from step 0 on"),
        (lambda: top_k(0.1, chunk=0), ValueError, "`chunk` must be >= 1"),
        (lambda: random_k(2, key=0), ValueError, "`density` must be in"),
        (lambda: quantized(3), ValueError, "`bits` must be one of"),
        (lambda: quantized(8, block=12), ValueError, "multiple of 8, got 12"),
        (lambda: quantized(8, key=0), ValueError, "`key` must be given with"),
        (lambda: quantized(8, stochastic=True), ValueError, "`key` must be given"),
        (
            lambda: quantized(2, stochastic=True, key=0),
            ValueError,
            "`bits` must be 8 or 4 with `stochastic`, got 2",
        ),
        (lambda: sign("max"), ValueError, "`scale` must be one of"),
        (
            lambda: ox.compressors.low_rank(0),
            ValueError,
            "`rank` must be >= 1",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_resizing_keeps_the_mean():
    tx = ox.compressed_mean(quantized(4, block=64), "data", workers=4)
    _, state = run(tx, gradients(3))
    fewer = ox.resize_workers(state, 2)
    more = ox.resize_workers(fewer, 4)
    for other, workers in ((fewer, 2), (more, 4), (ox.resize_workers(state, 3), 3)):
        fresh = ox.compressed_mean(quantized(4, block=64), "data", workers=workers)
        expected = fresh.init(
            jax.tree.map(lambda g: jnp.zeros(g.shape[2:]), gradients(1))
        )
        assert jax.tree.map(jnp.shape, other) == jax.tree.map(jnp.shape, expected)
        for name in ("e", "w"):
            np.testing.assert_allclose(
                np.mean(other.residual.value[name], axis=0),
                np.mean(state.residual.value[name], axis=0),
                atol=1e-7,
            )
        old, new = (
            np.asarray(one.compressor.value).reshape(-1, 64) for one in (state, other)
        )
        rows = int(state.compressor.rows)
        np.testing.assert_array_equal(new[:rows], old[:rows])
        assert not new[rows:].any()
    np.testing.assert_array_equal(
        more.residual.value["w"][0], more.residual.value["w"][1]
    )


def test_resizing_without_compressed_leaves():
    tx = ox.compressed_mean(quantized(4), "data", workers=4)
    resized = ox.resize_workers(tx.init({"b": jnp.ones(3)}), 3)
    fresh = ox.compressed_mean(quantized(4), "data", workers=3).init({"b": jnp.ones(3)})
    assert jax.tree.map(jnp.shape, resized) == jax.tree.map(jnp.shape, fresh)


def test_a_compressor_of_ones_own():
    class Half(Compressor):
        def encode(self, x, site):
            return ox.compressors.to_bytes(x.astype(jnp.float16))

        def decode(self, data, site):
            x = ox.compressors.from_bytes(data, site.shape, jnp.float16)
            return x.astype(jnp.float32)

    grads = gradients(5)
    found, state = run(ox.compressed_mean(Half(), "data", workers=N), grads)
    halves = jax.tree.map(lambda g: g.mean(axis=1), grads)
    for name in grads:
        np.testing.assert_allclose(found[name], halves[name], atol=2e-3)
    kept = np.abs(state.residual.value["w"]).max()
    assert 0 < kept < 2e-3
