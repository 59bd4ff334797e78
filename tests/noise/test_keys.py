"""What shares its numbers with what: transformations of one kind that have one key."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_extras as ox

from specs import factories

SIZE = 20_000
MADE = {
    "add_decayed_noise": lambda key: ox.add_decayed_noise(key=key),
    "noisy_sgd": lambda key: ox.noisy_sgd(0.1, key=key),
    "add_anticorrelated_noise": lambda key: ox.add_anticorrelated_noise(1, key=key),
    "anti_pgd": lambda key: ox.anti_pgd(0.1, 1, key=key),
    "add_langevin_noise": lambda key: ox.add_langevin_noise(0.1, key=key),
    "sgld": lambda key: ox.sgld(0.1, key=key),
    "psgld": lambda key: ox.psgld(0.1, key=key),
    "trace_with_bias_correction": lambda key: ox.trace_with_bias_correction(
        initial_scale=1, key=key
    ),
}
KINDS = {
    "noisy_sgd": "add_decayed_noise",
    "anti_pgd": "add_anticorrelated_noise",
    "sgld": "add_langevin_noise",
    "psgld": "add_langevin_noise",
}


def noise(tx, **extra_args):
    zeros = jnp.zeros(SIZE)
    drawn, _ = tx.update(zeros, tx.init(zeros), zeros, **extra_args)
    return drawn


def test_documentation_says_that_a_second_one_needs_its_own_key():
    keyed = [f for f in factories() if "key" in inspect.signature(f).parameters]
    keyed.remove(ox.power_sgd)  # two may start from the same factors
    keyed.remove(ox.keep_bfloat16_params)  # a parameter has one
    rounding = {"compress_state"}  # no noise to compare
    assert {f.__name__ for f in keyed} == MADE.keys() | rounding
    for factory in keyed:
        assert (
            "A second transformation of this kind needs a key of its own: with one key,"
            " both draw the same numbers." in " ".join(factory.__doc__.split())
        ), factory.__name__


@pytest.mark.slow
def test_one_kind_with_one_key_draws_the_same_numbers():
    keys = jnp.arange(2)
    draws = [jax.jit(jax.vmap(lambda k, m=m: noise(m(k))))(keys) for m in MADE.values()]
    kinds = [(KINDS.get(name, name), key) for name in MADE for key in range(2)]
    same = np.array([[a == b for b in kinds] for a in kinds])
    correlation = np.abs(np.corrcoef(np.concatenate(draws)))
    np.testing.assert_allclose(correlation[same], 1, atol=1e-5)
    assert correlation[~same].max() < 6 / SIZE**0.5


def test_in_a_chain_equal_noise_adds_up_to_twice_its_deviation():
    def chain(*keys):
        return optax.chain(*(ox.add_decayed_noise(1.0, 0.0, key=k) for k in keys))

    once = noise(chain(0))
    np.testing.assert_array_equal(noise(chain(0, 0)), 2 * once)
    np.testing.assert_array_equal(noise(chain(1, 2), key=jax.random.key(0)), 2 * once)
    assert 1.9 < float(jnp.var(noise(chain(0, 1)))) < 2.1
