"""What follows the noise: it is drawn once, whatever the number of its consumers."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_extras as ox
from optax_extras._core import gaussian
from optax_extras.testing import check_transformation
from optax_extras.testing.checks import _compile_time

PARAMS = {"w": jnp.zeros((6, 5))}
STAGES = {
    "add_decayed_noise": lambda: ox.add_decayed_noise(0.1, key=0),
    "add_anticorrelated_noise": lambda: ox.add_anticorrelated_noise(0.1, key=0),
    "add_langevin_noise": lambda: ox.add_langevin_noise(0.1, key=0),
}


def rotations(tx, dtype=jnp.float32):
    """Shifts in the compiled step, of which every copy of the generator has many."""
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)

    def step(params, state):
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    program = jax.jit(step).lower(params, tx.init(params)).compile()
    return len(re.findall(r" shift-left\(", program.as_text()))


@pytest.mark.daily(
    "add_decayed_noise-bfloat16",
    "add_anticorrelated_noise-float32",
    "add_langevin_noise-float32",
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("stage", STAGES)
def test_many_consumers_share_one_draw(stage, dtype):
    alone = rotations(STAGES[stage](), dtype)
    before_adam = rotations(optax.chain(STAGES[stage](), optax.adam(0.1)), dtype)
    assert before_adam == alone > 0


@pytest.mark.daily("tx4-2", "tx1-1", "tx3-1")
@pytest.mark.parametrize(
    ("tx", "draws"),
    [
        (ox.noisy_sgd(0.1, key=0), 1),
        (ox.noisy_sgd(0.1, key=0, momentum=0.9), 1),
        (ox.sgld(0.1, key=0), 1),
        (ox.psgld(0.1, key=0), 1),
        (ox.anti_pgd(0.1, 0.1, key=0), 2),
    ],
)
def test_one_consumer_takes_the_draw_in(tx, draws):
    def temporaries(tx):
        params = {"w": jnp.zeros((512, 512))}

        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        program = jax.jit(step, donate_argnums=(0, 1))
        program = program.lower(params, tx.init(params), params).compile()
        return program.memory_analysis().temp_size_in_bytes / 512**2

    assert temporaries(tx) < 0.1
    assert rotations(tx) == draws * rotations(STAGES["add_decayed_noise"]())


def test_statistics_of_the_noise_compile_under_vmap_and_scan():
    def deviations(gamma):
        tx = ox.add_decayed_noise(0.01, gamma, key=0)
        zeros = jnp.zeros(100)

        def step(state, _):
            updates, state = tx.update(zeros, state)
            return state, jnp.std(updates)

        return jax.lax.scan(step, tx.init(zeros), None, length=3)[1]

    result = jax.jit(jax.vmap(deviations))(jnp.arange(3.0))
    assert bool((result > 0).all())


@pytest.mark.skipif(
    jax.__version_info__ < (0, 12), reason="older compilers take no exponential time"
)
@pytest.mark.nightly
def test_without_the_barriers_compilation_does_not_end(monkeypatch):
    monkeypatch.setattr(jax.lax, "optimization_barrier", lambda x: x)
    monkeypatch.setattr(_compile_time, "LIMIT", 10.0)
    gaussian.gaussian_like.clear_cache()
    (result,) = check_transformation(
        STAGES["add_decayed_noise"],
        on_fail="collect",
        checks=["compiles_before_other_transformations"],
    )
    gaussian.gaussian_like.clear_cache()
    assert "did not compile in 10 s" in result.message
