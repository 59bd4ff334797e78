"""The average of g² that is kept in codes for long, for docs/evidence_memory.py."""

from codec_measures import B2, average
from study import table

from optax_extras.codecs import Codec, bfloat16, blockwise, float8

STEPS, CLOSE = 4000, 0.02
CODECS: dict[str, Codec] = {
    "bfloat16, nearest": bfloat16(stochastic=False),
    "bfloat16": bfloat16(),
    "8 bit": blockwise(signed=False),
    "8 bit, nearest": blockwise(signed=False, stochastic=False),
    "4 bit": blockwise(4, signed=False),
    "float8 e5m2": float8(),
    "float8 e4m3": float8("e4m3"),
}
# Deviations of the logarithms of gradients within a block, and what they stand for.
SPREADS = {0.0: "gradients of one size", 1.0: "of many sizes"}


def error(codec: str, spread: float) -> float:
    """How far the mean over elements is from that in float32, as a share of it."""
    return average(CODECS[codec], spread, STEPS)[0] - 1


def row(codec: str) -> list[str]:
    """A codec's row of the table."""
    cells = [codec]
    for spread in SPREADS:
        _, deviation = average(CODECS[codec], spread, STEPS)
        cells += [f"{error(codec, spread):+.1%}", f"{deviation:.0%}"]
    return cells


def lines() -> list[str]:
    """The table, and what it shows."""
    head = ["codec"]
    for sizes in SPREADS.values():
        head += [f"{sizes}: mean", "an element"]
    worst = {k: max(abs(error(k, spread)) for spread in SPREADS) for k in CODECS}
    close = [k for k in CODECS if worst[k] <= CLOSE]
    others = [k for k in CODECS if k not in close]
    return [
        "An average that is rounded to the nearest stands still where a gradient adds"
        " less than half of a step of its code. Here is the average of g² with b2 ="
        f" {B2}, as Adam has it, after {STEPS} steps of normal gradients, in"
        " comparison with float32: the mean over elements, and how far one of them is"
        " away (root mean square). [memory.md](memory.md#which-codec) has longer runs."
        " Where an average is too large, the steps of Adam are too small.",
        "",
        *table(head, [row(codec) for codec in CODECS]),
        "",
        f"Within {CLOSE:.0%} of float32 in the mean: {'; '.join(close)}. Further away:"
        f" {'; '.join(others) or 'none'}.",
    ]
