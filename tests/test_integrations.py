"""Training steps of the libraries that users bring."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import optax_extras as ox

X = jnp.asarray(np.random.default_rng(0).normal(size=(64, 3)), jnp.float32)
Y = X @ jnp.array([[1.0], [-2.0], [0.5]])
OPTIMIZERS = {
    "noisy_sgd": lambda: ox.noisy_sgd(0.1, 0.01, key=0),
    "momentum_sgd": lambda: ox.momentum_sgd(0.02, nesterov=True),
    "adasmooth": lambda: ox.adasmooth(0.05, weight_decay=1e-4),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def train_nnx(optimizer, model, gradients):
    def loss(model):
        return jnp.mean((model(X) - Y) ** 2)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, gradients(loss, model, optimizer))

    before = float(loss(model))
    for _ in range(200):
        step(model, optimizer)
    assert float(loss(model)) < before / 100


@every_optimizer
def test_flax_nnx_optimizer(name):
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, OPTIMIZERS[name](), wrt=nnx.Param)
    train_nnx(optimizer, model, lambda loss, model, _: nnx.grad(loss)(model))


def test_flax_nnx_optimizer_with_look_ahead_gradients():
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ox.nesterov_lookahead(0.02), wrt=nnx.Param)

    def pure(tree):
        return jax.tree.map(
            lambda x: x[...] if isinstance(x, nnx.Variable) else x,
            tree,
            is_leaf=lambda x: isinstance(x, nnx.Variable),
        )

    def gradients(loss, model, optimizer):
        params = pure(nnx.state(model, nnx.Param))
        nnx.update(
            model, ox.nesterov_lookahead_params(pure(optimizer.opt_state), params)
        )
        grads = nnx.grad(loss)(model)
        nnx.update(model, params)
        return grads

    train_nnx(optimizer, model, gradients)
    with pytest.raises(ValueError, match="`params` must have the structure"):
        ox.nesterov_lookahead_params(optimizer.opt_state, nnx.state(model, nnx.Param))


@pytest.mark.parametrize("name", [*OPTIMIZERS, "look-ahead"])
def test_equinox_training_step(name):
    model = eqx.nn.MLP(3, 1, 8, 1, key=jax.random.key(0))
    look_ahead = name == "look-ahead"
    tx = ox.nesterov_lookahead(0.02) if look_ahead else OPTIMIZERS[name]()
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    def loss(model):
        return jnp.mean((jax.vmap(model)(X) - Y) ** 2)

    @eqx.filter_jit
    def step(model, state):
        params, static = eqx.partition(model, eqx.is_inexact_array)
        point = ox.nesterov_lookahead_params(state, params) if look_ahead else params
        grads = eqx.filter_grad(loss)(eqx.combine(point, static))
        updates, state = tx.update(grads, state, params)
        return eqx.apply_updates(model, updates), state

    before = float(loss(model))
    for _ in range(200):
        model, state = step(model, state)
    assert float(loss(model)) < before / 10


def test_an_equinox_model_with_integers_is_told_how_to_filter():
    class Model(eqx.Module):
        weight: jax.Array
        table: jax.Array

    model, tx = Model(jnp.ones(3), jnp.arange(3)), ox.adasmooth(0.05)

    def loss(model):
        return jnp.sum(model.weight[model.table] ** 2)

    advice = r"at \.table; .* `eqx\.filter\(model, eqx\.is_inexact_array\)`"
    with pytest.raises(TypeError, match=f"`params` must .* int32 {advice}"):
        tx.init(eqx.filter(model, eqx.is_array))
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    with pytest.raises(
        TypeError, match=rf"`updates` must .* {advice} and `eqx\.filter_"
    ):
        tx.update(jax.grad(loss, allow_int=True)(model), state, model)
    updates, _ = tx.update(eqx.filter_grad(loss)(model), state, model)
    assert float(loss(eqx.apply_updates(model, updates))) < float(loss(model))


def test_equinox_serialisation_of_the_noise_state(tmp_path):
    tx = ox.add_decayed_noise(key=jax.random.key(1))
    state = tx.update(jnp.zeros(3), tx.init(jnp.zeros(3)))[1]
    eqx.tree_serialise_leaves(tmp_path / "state.eqx", state)
    restored = eqx.tree_deserialise_leaves(tmp_path / "state.eqx", state)
    chex.assert_trees_all_equal(restored, state)


def test_noise_resumes_from_an_orbax_checkpoint(tmp_path):
    grads = {"w": jnp.zeros((4, 4))}
    tx = optax.chain(ox.add_decayed_noise(1.0, key=5), ox.momentum_sgd(0.1))
    update, state, expected = jax.jit(tx.update), tx.init(grads), []
    for step in range(4):
        if step == 2:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(tmp_path / "checkpoint", state)
        updates, state = update(grads, state)
        expected.append(updates)
    with ocp.StandardCheckpointer() as checkpointer:
        resumed = checkpointer.restore(tmp_path / "checkpoint", tx.init(grads))
    for step in (2, 3):
        updates, resumed = update(grads, resumed)
        chex.assert_trees_all_equal(updates, expected[step])
