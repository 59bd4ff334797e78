"""Errors of codecs on moments of Adam, and on an average that is kept for long."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_extras import compress_state
from optax_extras.codecs import Codec, bfloat16, blockwise, float8
from optax_extras.tasks import load_task

TASKS = "digits", "characters"
STEPS, RATE, B2, EPS, DRAWS = 1000, 0.003, 0.999, 1e-8, 4
# Of averages: a deviation of the logarithms of gradients within a block.
SPREADS, AVERAGED = (0.5, 1.0), (16, 256)

# By name: the codec of first moments, that of second moments, and when to use it.
CODECS: Mapping[str, tuple[Codec, Codec, str]] = {
    "bfloat16()": (
        bfloat16(),
        bfloat16(),
        "first choice if half of the state fits: hardly an error, and no blocks",
    ),
    "bfloat16(stochastic=False)": (
        bfloat16(stochastic=False),
        bfloat16(stochastic=False),
        "first moments; with a decay of 0.999 an average never falls",
    ),
    "blockwise()": (
        blockwise(),
        blockwise(signed=False),
        "if a quarter of the state fits",
    ),
    "blockwise(4)": (
        blockwise(4),
        blockwise(4, signed=False),
        "first moments, beside second moments in 8 bits",
    ),
    'float8("e4m3")': (float8("e4m3"), float8("e4m3"), "comparisons"),
    "float8()": (float8(), float8(), "comparisons, and tools that read the format"),
}


@cache
def moments(name: str) -> list[tuple[jax.Array, jax.Array]]:
    """Adam's moments of each leaf of a task after training, without their bias."""
    task, tx = load_task(name), optax.adam(RATE, b2=B2, eps=EPS)
    first, order, noise = jax.random.split(jax.random.key(0), 3)
    params = task.init(first)
    plan = task.batches.plan(order, jnp.int32(0), STEPS)

    def step(carry: Any, entry: Any) -> Any:
        params, state = carry
        rows, key = entry
        grads = jax.grad(task.loss)(params, task.batches.take(rows), key)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params: Any) -> Any:
        entries = plan, jax.random.split(noise, STEPS)
        return jax.lax.scan(step, (params, tx.init(params)), entries)[0][1]

    adam = train(params)[0]
    mu = optax.tree.bias_correction(adam.mu, 0.9, adam.count)
    nu = optax.tree.bias_correction(adam.nu, B2, adam.count)
    return list(zip(jax.tree.leaves(mu), jax.tree.leaves(nu), strict=True))


def stored(codec: Codec, x: jax.Array) -> np.ndarray:
    """What a codec makes of an array, for several draws of the bits for rounding."""
    words = jax.random.bits(jax.random.key(7), (DRAWS, *x.shape), jnp.uint32)
    statistics = codec.statistics(x)

    def one(words: jax.Array) -> jax.Array:
        return codec.decode(codec.encode(x, statistics, words), x.shape)

    return np.asarray(jax.vmap(one)(words))


def errors(name: str, codec: Codec, signed: bool) -> np.ndarray:
    """What errors of stored moments change in the last step of Adam.

    Those of first moments are changes of μ / √ν, which is 1 where all gradients are
    alike; those of second moments are relative changes of 1 / √ν. Of elements without
    a gradient there are none.
    """
    found = []
    for mu, nu in moments(name):
        divisor = np.sqrt(nu) + EPS
        if signed:
            error = (stored(codec, mu) - np.asarray(mu)) / divisor
        else:
            error = divisor / (np.sqrt(stored(codec, nu)) + EPS) - 1
        found.append(error[:, np.asarray(nu) > 0].ravel())
    return np.concatenate(found).astype(np.float64)


def steps(name: str) -> np.ndarray:
    """The last step of Adam, in learning rates."""
    return np.concatenate(
        [np.ravel(mu / (np.sqrt(nu) + EPS)) for mu, nu in moments(name)]
    )


def rms(x: np.ndarray) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(x**2)))


@cache
def average(
    codec: Codec, spread: float = 1.0, steps: int = 4000, still: int = 0
) -> tuple[float, float]:
    """The average of squares that is kept in a codec, as a multiple of the true one.

    Args:
      codec: of the average.
      spread: the deviation of the logarithms of the gradients' deviations.
      steps: how many.
      still: in how many more of them every second gradient is 0; the result is then
        that of its average.

    Returns:
      The mean of the multiples of all elements over the last tenth of the steps, and
      the root of their mean squared difference from 1.
    """
    plain = optax.scale_by_adam(b1=0.0, b2=B2)
    coded = compress_state(plain, {"nu": codec})
    scales = jnp.exp(spread * jax.random.normal(jax.random.key(1), AVERAGED))
    measured = slice(None, None, 2 if still else 1)

    def step(states: Any, number: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(2), number)
        grads = scales * jax.random.normal(key, AVERAGED)
        grads = jnp.where(number < steps, grads, grads.at[:, ::2].set(0))
        _, true = plain.update(grads, states[0])
        _, kept = coded.update(grads, states[1])
        multiple = codec.decode(kept.inner_state.nu, AVERAGED) / true.nu
        multiple = multiple[:, measured]
        return (true, kept), (jnp.mean(multiple), jnp.mean((multiple - 1) ** 2))

    @jax.jit
    def run() -> Any:
        states = plain.init(scales), coded.init(scales)
        return jax.lax.scan(step, states, jnp.arange(steps + still))[1]

    mean, square = (np.mean(x[-(steps + still) // 10 :]) for x in run())
    return float(mean), float(np.sqrt(square))


def bytes_of(codec: Codec) -> float:
    """Bytes of each number of a large matrix."""
    matrix = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    words = jax.ShapeDtypeStruct(matrix.shape, jnp.uint32)
    encoded = jax.eval_shape(
        lambda x, w: codec.encode(x, codec.statistics(x), w), matrix, words
    )
    sizes = (x.size * x.dtype.itemsize for x in jax.tree.leaves(encoded))
    return sum(sizes) / matrix.size
