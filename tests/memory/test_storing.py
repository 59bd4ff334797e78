"""A function whose results are stored as soon as they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import optax_extras as ox
from optax_extras.codecs import Codec, bfloat16, blockwise
from optax_extras.memory._storing import Value, run


def run_of(function, *arguments, stores):
    """The results of a function, some of them stored."""
    traced = jax.make_jaxpr(function)(*arguments)
    return [x.value for x in run(traced, list(map(Value, arguments)), stores)]


def rounded(x):
    return Value(jnp.round(x.value))


def test_what_follows_is_computed_from_what_was_stored():
    def function(x):
        y = x + 1.25
        return y, 2 * y, x

    assert run_of(function, 1.0, stores={0: rounded}) == [2.0, 4.0, 1.0]
    assert run_of(function, 1.0, stores={}) == [2.25, 4.5, 1.0]


def test_arguments_and_constants_are_stored_too():
    constant = jnp.float32(2.75)

    def function(x):
        return x, constant, 0.4, x + constant

    found = run_of(function, 1.25, stores=dict.fromkeys(range(3), rounded))
    assert found == [1.0, 3.0, 0.0, 4.0]


def test_one_value_that_is_two_results_is_stored_twice():
    stored = []

    def store(place):
        return lambda x: stored.append(place) or rounded(x)

    def function(x):
        y = x + 0.25
        return y, y, y * 4

    found = run_of(function, 1.0, stores={0: store(0), 1: store(1)})
    assert (stored, found) == ([0, 1], [1.0, 1.0, 4.0])


def test_again_is_another_computation_of_the_same():
    again = []

    def store(x):
        again.append(x.again)
        return x

    def function(x, y):
        z = jax.jit(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0) / 3)(x) + y
        return z - 1, jnp.sum(z), jnp.cumsum(z)

    x, y = jnp.arange(4.0), jnp.ones(4)
    found = run_of(function, x, y, stores=dict.fromkeys(range(3), store))
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)


def calls_of(codec, tx_of):
    """How often a function inside of a chain runs, and is compiled in, in a step."""
    calls = []

    def count(x):
        calls.append(1)
        return x

    def update(updates, state, params=None):
        del params
        shape = jax.ShapeDtypeStruct(updates.shape, updates.dtype)
        return jax.pure_callback(count, shape, updates, vmap_method="sequential"), state

    first = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    tx = ox.compress_state(optax.chain(first, tx_of()), {"mu|nu|trace": codec})
    params = jnp.ones(512)
    state = tx.init(params)
    jax.block_until_ready(jax.jit(tx.update)(params, state, params))
    return len(calls)


@pytest.mark.parametrize("codec", [bfloat16(), blockwise()])
def test_what_is_costly_runs_once(codec):
    """Only single elements are computed again for the maxima of blocks."""
    assert calls_of(codec, lambda: optax.sgd(0.1, momentum=0.9)) == 1


def test_a_collective_before_it_runs_once():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    mean = optax.stateless(lambda g, p: jax.lax.pmean(g, "data"))
    tx = ox.compress_state(optax.chain(mean, optax.adam(0.1)), {"mu": blockwise()})
    params = jnp.ones(512)
    state = tx.init(params)

    def step(grads, state):
        return tx.update(grads[0], state, params)

    step = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(P("data"), P()),
            out_specs=(P(), P()),
        )
    )
    grads = jnp.arange(8.0)[:, None] * jnp.ones((8, 512))
    text = step.lower(grads, state).compile().as_text()
    assert text.count(" all-reduce(") == 1
    updates, _ = step(grads, state)
    alone, _ = ox.compress_state(optax.adam(0.1), {"mu": blockwise()}).update(
        grads.mean(0), state._replace(inner_state=state.inner_state[1]), params
    )
    np.testing.assert_allclose(updates, alone, rtol=0.05)


def test_a_compiled_inner_update_is_taken_apart():
    """A barrier around all of it would keep the wide state."""
    plain = optax.sgd(0.1, momentum=0.9)
    inner = optax.GradientTransformation(plain.init, jax.jit(plain.update))
    results = []
    for one in (plain, inner):
        tx = ox.compress_state(one, {"trace": bfloat16()})
        params = jnp.linspace(0.0, 1.0, 300)
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(params, state, params)
        results.append((updates, state))
    for x, y in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.nightly
def test_a_sum_over_many_leaves_is_not_taken_again():
    """A norm over 1 000 leaves is a chain of 1 000 sums."""
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
    params = {f"w{i}": jax.ShapeDtypeStruct((3,), jnp.float32) for i in range(1000)}
    tx = ox.compress_state(inner, {"trace": blockwise()})
    state = jax.eval_shape(tx.init, params)
    assert jax.eval_shape(tx.update, params, state, params)[1] == state


def test_constants_of_python_become_arrays():
    inner = optax.GradientTransformation(
        lambda params: {"a": 0.0, "b": params, "n": 0},
        lambda u, state, params=None: (u, {"a": 2.0, "b": u, "n": state["n"] + 1}),
    )
    tx = ox.compress_state(inner, {"a|b": bfloat16()})
    state = tx.init(jnp.ones(3))
    for _ in range(2):
        _, state = tx.update(jnp.zeros(3), state)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
    assert (state.inner_state["a"], state.inner_state["n"]) == (2.0, 2)


class Recorded(Codec):
    """Keeps the sum beside the numbers."""

    def statistics(self, x):
        return jnp.sum(x)

    def encode(self, x, statistics, words):
        del words
        return x, statistics

    def decode(self, encoded, shape):
        assert encoded[0].shape == shape
        return encoded[0]


def test_statistics_are_those_of_the_array():
    tx = ox.compress_state(optax.sgd(0.1, momentum=0.9), {"trace": Recorded()})
    params = jnp.arange(12.0).reshape(3, 4)
    _, state = jax.jit(tx.update)(params, tx.init(params), params)
    _, state = jax.jit(tx.update)(params, state, params)
    numbers, total = state.inner_state[0].trace
    np.testing.assert_allclose(numbers, 1.9 * params, rtol=1e-6)
    np.testing.assert_allclose(total, 1.9 * 66, rtol=1e-6)


class Counting(Codec):
    """Counts the arrays that it codes."""

    def __init__(self):
        self.coded = 0

    def encode(self, x, statistics, words):
        del statistics, words
        self.coded += 1
        return x

    def decode(self, encoded, shape):
        del shape
        return encoded


def test_an_array_that_is_returned_as_it_came_is_not_coded_again():
    codec = Counting()
    inner = optax.GradientTransformation(
        lambda params: {"kept": params, "last": params},
        lambda u, state, params=None: (u, {**state, "last": u}),
    )
    tx = ox.compress_state(inner, {".*": codec})
    state = tx.init(jnp.ones(3))
    assert codec.coded == 1  # by one program for arrays of one shape
    _, state = tx.update(jnp.zeros(3), state)
    assert codec.coded == 2
    np.testing.assert_array_equal(state.inner_state["kept"], 1)
    np.testing.assert_array_equal(state.inner_state["last"], 0)
