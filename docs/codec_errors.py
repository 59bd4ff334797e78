"""Writes the tables of errors in docs/memory.md, and draws its picture.

Run from the repository, with the `cli` extra: ``python docs/codec_errors.py``. It takes
about five minutes on two cores. Every number comes from here.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from codec_maps import MAPS, tabulated, without_zero
from codec_measures import (
    CODECS,
    SPREADS,
    TASKS,
    average,
    bytes_of,
    errors,
    moments,
    rms,
    steps,
    stored,
)
from matplotlib.axes import Axes
from study import table

from optax_extras.codecs import Codec, bfloat16, blockwise

FOLDER = Path(__file__).parent
PAGE, PICTURE = FOLDER / "memory.md", FOLDER / "images" / "codec-errors.png"
COLORS = "black", "#0072B2", "#D55E00", "#009E73", "#CC79A7"
# A band needs so many elements.
FEWEST = 20


def of_tasks(codec: Codec, signed: bool) -> str:
    """The error on each task."""
    return ", ".join(short(rms(errors(name, codec, signed))) for name in TASKS)


def short(x: float, digits: int = 2) -> str:
    """A number with so many digits, or all those before the point."""
    if x >= 10**digits:
        return f"{x:.0f}"
    text = np.format_float_positional(x, digits, unique=False, fractional=False)
    return text.removesuffix(".")


def codec_table() -> Iterator[str]:
    """Each codec of the library: bytes, errors, and when to use it."""
    head = "codec", "bytes", "error of μ", "error of ν", "average of g²", "when"
    rows = []
    for name, (first, second, when) in CODECS.items():
        mean, deviation = average(second)
        rows.append(
            [
                f"`{name}`",
                f"{bytes_of(first):.3g}",
                of_tasks(first, True),
                of_tasks(second, False),
                f"{short(mean, 3)} ± {short(deviation)}",
                when,
            ]
        )
    yield from table(head, rows)
    sizes = " and ".join(f"{short(rms(steps(name)))} on {name}" for name in TASKS)
    yield f"\nWithout an error, the root mean square of μ / √ν is {sizes}."


def rounding_table() -> Iterator[str]:
    """Averages that are rounded to the nearest and at random, for longer and longer."""
    codecs = {
        "16 bits, nearest": bfloat16(stochastic=False),
        "16 bits, at random": bfloat16(),
        "8 bits, nearest": blockwise(signed=False, stochastic=False),
        "8 bits, at random": blockwise(signed=False),
    }
    numbers = 1000, 4000, 16000
    rows = [
        [
            name,
            *(f"{average(codec, steps=n)[0]:.2f}" for n in numbers),
            f"{average(codec, steps=4000, still=2000)[0]:.2f}",
        ]
        for name, codec in codecs.items()
    ]
    heads = [f"{n} steps" for n in numbers]
    yield from table(["codec", *heads, "4000, and 2000 without a gradient"], rows)


def map_table(signed: bool) -> Iterator[str]:
    """Each map, with 8 and 4 bits, in blocks of 256 and of 64."""
    kinds = [(bits, block) for bits in (8, 4) for block in (256, 64)]
    rows = []
    for name, levels in maps(signed):
        codecs = (tabulated(levels, bits, signed, block) for bits, block in kinds)
        rows.append([name, *(of_tasks(codec, signed) for codec in codecs)])
    yield from table(["levels", *(f"{b} bits, blocks of {n}" for b, n in kinds)], rows)


def average_table(bits: int) -> Iterator[str]:
    """What each map makes of an average, rounded to the nearest and at random."""
    kinds = {"nearest": False, "at random": True}
    head = ["levels"]
    head += [f"{kind}, spread {spread}" for spread in SPREADS for kind in kinds]
    rows = []
    for name, levels in maps(False):
        row = [name]
        for spread in SPREADS:
            for is_random in kinds.values():
                codec = tabulated(levels, bits, False, stochastic=is_random)
                mean, deviation = average(codec, spread)
                row.append(f"{short(mean, 3)} ± {short(deviation)}")
        rows.append(row)
    yield from table(head, rows)


def maps(signed: bool) -> Iterator[tuple[str, Any]]:
    """Names and levels; that without 0 is for second moments alone."""
    yield from MAPS.items()
    if not signed:
        yield "linear without 0", without_zero


def draw() -> None:
    """Draws relative errors over magnitudes, and where the numbers of blocks are."""
    fig, panels = plt.subplots(
        2,
        2,
        figsize=(11, 6.5),
        sharex="col",
        sharey="row",
        height_ratios=(4, 1),
        layout="constrained",
    )
    for which, title in enumerate(("first moments", "second moments, signed=False")):
        draw_moments(which, *panels[:, which])
        panels[0, which].set_title(title)
    panels[0, 0].set(ylim=(1e-3, 3), ylabel="relative error: median to 95 %")
    panels[1, 0].set_ylabel("elements")
    fig.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5
    )
    fig.savefig(PICTURE, dpi=110)


def draw_moments(which: int, axes: Axes, counts: Axes) -> None:
    """Draws the errors of first or of second moments, 0 or 1, and their magnitudes."""
    edges = np.geomspace(1e-4, 1, 13)
    arrays = [pair[which] for name in TASKS for pair in moments(name)]
    shares = np.concatenate([_shares(x) for x in arrays])
    classes = [
        (shares >= low) & (shares < high) for low, high in itertools.pairwise(edges)
    ]
    names = [name for name in CODECS if "False" not in name]
    for name, color in zip(names, COLORS, strict=True):
        codec = CODECS[name][which]
        found = np.concatenate([_relative(codec, x) for x in arrays], axis=1)
        median, high = np.transpose(
            [
                np.quantile(found[:, own], (0.5, 0.95))
                if own.sum() >= FEWEST
                else (np.nan, np.nan)
                for own in classes
            ]
        )
        middles = np.sqrt(edges[1:] * edges[:-1])
        axes.loglog(middles, median, color=color, label=name)
        axes.loglog(middles, high, color=color, linewidth=0.7)
        axes.fill_between(middles, median, high, color=color, alpha=0.15)
    axes.grid(alpha=0.3)
    counts.hist(shares, edges, color="0.6")
    counts.set_xlabel("magnitude / the largest of its block")


def _shares(x: jax.Array) -> np.ndarray:
    """Magnitudes as shares of the largest of their blocks of 256."""
    codec: Any = blockwise()
    largest = codec.grid(x.shape).spread(codec.statistics(x), x)
    return np.asarray(jnp.where(largest > 0, abs(x) / largest, 0)).ravel()


def _relative(codec: Codec, x: jax.Array) -> np.ndarray:
    """Relative errors of each draw."""
    known = np.asarray(x)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 is in no class
        share = abs(stored(codec, x) - known) / abs(known)
    return share.reshape(len(share), -1)


PARTS: Mapping[str, Callable[[], Iterator[str]]] = {
    "codecs": codec_table,
    "rounding": rounding_table,
    "first moments": partial(map_table, True),
    "second moments": partial(map_table, False),
    "averages in 8 bits": partial(average_table, 8),
    "averages in 4 bits": partial(average_table, 4),
}


def updated(text: str, part: str, lines: Sequence[str]) -> str:
    """The page with new lines between two comments.

    Raises:
      ValueError: it does not have these comments.
    """
    begin = f"<!-- written by docs/codec_errors.py: {part} -->\n"
    end = "<!-- end -->\n"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the page must hold {begin!r} and then {end!r}")
    return before + begin + "\n" + "\n".join(lines) + "\n\n" + end + after


def main() -> None:
    """Writes the page and the picture."""
    draw()
    for part, make in PARTS.items():
        lines = list(make())
        PAGE.write_text(updated(PAGE.read_text(), part, lines))


if __name__ == "__main__":
    main()
