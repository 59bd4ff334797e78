"""The average of g² over thousands of steps, in codes: for docs/evidence_memory.py."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
from study import table

import optax_extras as ox
from optax_extras.codecs import Codec, bfloat16, blockwise, float8

ELEMENTS, DECAY, STEPS, LONG = 2**14, 0.999, 4000, 16_000
CLOSE = 0.02
NEAREST = "bfloat16, nearest"
CODECS: dict[str, Codec] = {
    NEAREST: bfloat16(stochastic=False),
    "bfloat16": bfloat16(),
    "8 bit": blockwise(signed=False),
    "8 bit, nearest": blockwise(signed=False, stochastic=False),
    "8 bit, signed": blockwise(),
    "4 bit": blockwise(4, signed=False),
    "float8 e5m2": float8(),
    "float8 e4m3": float8("e4m3"),
}
# Decades that the sizes of gradients in a block differ by.
DECADES = 0, 4


@cache
def average(codec: Codec | None, decades: int, steps: int) -> np.ndarray:
    """The averages of all elements, each with normal gradients of its own size."""
    exponents = -decades * jax.random.uniform(jax.random.key(1), (ELEMENTS,))
    sizes = 10.0**exponents
    inner, codecs = optax.scale_by_rms(DECAY), {"nu": codec}
    tx = inner if codec is None else ox.compress_state(inner, codecs)

    def step(state: optax.OptState, i: jax.Array) -> tuple[optax.OptState, None]:
        key = jax.random.fold_in(jax.random.key(0), i)
        g = sizes * jax.random.normal(key, (ELEMENTS,))
        return tx.update(g, state)[1], None

    numbers = jnp.arange(steps)
    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, numbers))(tx.init(sizes))
    if codec is not None:
        state = ox.decompress_state(state, inner, codecs, sizes)
    return np.asarray(state.nu, np.float64)


def ratios(codec: str, decades: int, steps: int) -> np.ndarray:
    """The averages of all elements as a share of those in float32, less 1."""
    exact = average(None, decades, steps)
    return average(CODECS[codec], decades, steps) / exact - 1


def error(codec: str, decades: int, steps: int) -> float:
    """The mean over elements of that share."""
    return float(np.mean(ratios(codec, decades, steps)))


def share(x: float) -> str:
    """A share as text, of itself or of 1 where it is large."""
    return f"{x:+.1%}" if abs(x) < 2 else f"{x:.0f} times"


def row(codec: str) -> list[str]:
    """A codec's row of the table."""
    cells = [codec]
    for decades in DECADES:
        found = ratios(codec, decades, STEPS)
        cells += [share(found.mean()), share(np.sqrt(np.mean(found**2))).lstrip("+")]
    return cells


def lines() -> list[str]:
    """The table, and what it shows."""
    head = ["codec"]
    for decades in DECADES:
        sizes = f"sizes over {decades} decades" if decades else "one size"
        head += [f"{sizes}: mean", "error of an element"]
    errors = {k: [error(k, decades, STEPS) for decades in DECADES] for k in CODECS}
    close = [k for k, both in errors.items() if max(map(abs, both)) <= CLOSE]
    one = [k for k, both in errors.items() if abs(both[0]) <= CLOSE and k not in close]
    others = [k for k in CODECS if k not in close + one]
    return [
        "An average in a code of a few bits moves by steps of its code, which are far"
        f" larger than what a gradient adds. Here is the average of g² with b2 ="
        f" {DECAY}, as Adam has it, after {STEPS} steps of normal gradients, in"
        f" comparison with float32: the mean over {ELEMENTS} elements, and the root of"
        " the mean square of their errors. The gradients of all elements have one size,"
        f" or sizes that differ by up to {10 ** DECADES[1]} times within a block.",
        "",
        *table(head, [row(codec) for codec in CODECS]),
        "",
        f"Means within {CLOSE:.0%} of float32 in both: {'; '.join(close)}. Only with"
        f" gradients of one size: {'; '.join(one) or 'none'}. In neither:"
        f" {'; '.join(others) or 'none'}. Rounded to the nearest, an average in"
        " bfloat16 rises where a gradient is several times its usual size, never falls,"
        f" and does not come to rest soon: after {LONG} steps it is"
        f" {error(NEAREST, 0, LONG):+.0%}. Adam's steps are smaller where it is too"
        " large.",
    ]


if __name__ == "__main__":
    print("\n".join(lines()))
