"""Writes a section of docs/evidence.md: states and parameters in fewer bits.

Run from the repository, with the `cli` extra: ``python docs/evidence_memory.py``. It
takes about fifteen minutes on two cores. Every number and verdict comes from here. With
a folder as its argument, it keeps finished sweeps there, and goes on after them.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import long_average
import numpy as np
from memory_methods import (
    FULL,
    LONG,
    STEPS,
    TASKS,
    TUNING_SEEDS,
    at_the_rates_of_peers,
    longer,
    peer_of,
    study,
)
from study import (
    FOLDER,
    FRESH_SEEDS,
    Study,
    ends,
    fresh,
    rates,
    spread,
    table,
    tuned,
    write_section,
)
from verdicts import HELD, LOST, NO_DIFFERENCE, SHARE, TOLERANCE, Outcome, cost, judge

from optax_extras.tuning._drawing import SMALL, STYLES, WIDTH, new_figure

NOISE = "within noise"
WORDS = {HELD: "better", LOST: "worse", NO_DIFFERENCE: NOISE}
# Standard errors from which on a difference is no noise: 0.7 % of rows without one.
ERRORS = 3


def outcome(found: Study, method: str) -> Outcome:
    """The verdict on a method beside its peer."""
    goal = found.task.goal
    return judge(*(cost(ends(found, k), goal) for k in (method, peer_of(method))))


def differences(found: Study, method: str) -> np.ndarray:
    """Differences to the peer, as shares of its median, (seeds, evaluations)."""
    goal = found.task.goal.reported
    ours, peer = (fresh(found, k).curves(goal)[0] for k in (method, peer_of(method)))
    return (ours - peer) / np.median(peer, 0)[None]


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds, and its standard error."""
    return values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5


def difference(found: Study, method: str) -> str:
    """Mean over seeds of the last difference to the peer, with its standard error."""
    mean, error = mean_and_error(differences(found, method)[:, -1])
    return f"{mean:+.1%} ± {error:.1%}" if np.isfinite(error) else "diverged"


def verdict(found: Study, method: str) -> str:
    """One of `WORDS`, with what is small and no noise told from noise."""
    word = WORDS[outcome(found, method).verdict]
    mean, error = mean_and_error(differences(found, method)[:, -1])
    if word != NOISE or not abs(mean) > ERRORS * error:
        return word
    is_worse = (mean > 0) == (found.task.goal.mode == "min")
    return f"slightly {WORDS[LOST if is_worse else HELD]}"


def at_one_rate(found: Study, method: str) -> str:
    """The difference at the rate of the peer, empty where that is the method's own."""
    if tuned(found, method).best() == tuned(found, peer_of(method)).best():
        return ""
    name = f"{found.name}-same"
    return difference(at_the_rates_of_peers(found, name=name), method)


def row(found: Study, method: str) -> list[str]:
    """A method's row of a task's table."""
    of_parameter = 4 if found.methods[method].task is None else 2
    size = of_parameter + fresh(found, method).state_bytes_per_parameter
    cells = [method, f"{size:.1f}", rates(found, method), spread(ends(found, method))]
    if method == peer_of(method):
        return [*cells, "", "", "", ""]
    wins, ties, losses, _ = outcome(found, method)
    compared = [difference(found, method), at_one_rate(found, method)]
    counts = f"{wins}, {ties}, {losses}"
    return [*cells, *compared, counts, verdict(found, method)]


def rows(found: Study) -> list[str]:
    """Lines of a task's table."""
    head = ["method", "bytes for each parameter", "best rate", found.task.goal.reported]
    head += ["difference to float32", "at its rate", "won, tied, lost", ""]
    return table(head, [row(found, method) for method in found.methods])


def summary(studies: Mapping[str, Study]) -> str:
    """What the tables show."""
    named: dict[str, list[str]] = {}
    for name, found in studies.items():
        for method in found.methods:
            if method != peer_of(method):
                same = at_one_rate(found, method)
                at_rate = f"; at the rate of {FULL} {same}" if same else ""
                which = f"{method} ({name}{at_rate})"
                named.setdefault(verdict(found, method), []).append(which)
    noise = len(named.pop(NOISE, []))
    total = noise + sum(map(len, named.values()))
    parts = [f"{k.capitalize()}: {'; '.join(named[k])}." for k in sorted(named)]
    first = f"Of {total} rows beside a peer, {noise} are within noise."
    return " ".join([first, *parts])


def picture(found: Study) -> str:
    """Draws the differences over the steps, and returns the line that shows them."""
    figure = new_figure(WIDTH, 5.2)
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"Adam": "states of Adam", "AdamW": "AdamW, parameters in bfloat16"}
    for axes, (optimizer, title) in zip(panels, titles.items(), strict=True):
        peer = f"{optimizer}, {FULL}"
        others = [k for k in found.methods if peer_of(k) == peer != k]
        for method, style in zip(others, STYLES, strict=False):
            steps = fresh(found, method).steps
            mean, error = mean_and_error(100 * differences(found, method))
            label = method.rpartition("parameters, ")[2].removeprefix("Adam, ")
            axes.plot(steps, mean, label=label, **style._asdict(), markersize=4)
            band = mean - error, mean + error
            axes.fill_between(steps, *band, color=style.color, alpha=0.15, linewidth=0)
        axes.axhline(0, color="grey", linewidth=1, label=FULL)
        axes.set_xlabel("step")
        axes.set_title(title, fontsize=SMALL)
        axes.grid(alpha=0.3)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15)}
        axes.legend(fontsize=SMALL, ncols=2, **below)
    reported = found.task.goal.reported
    panels[0].set_ylabel(f"{reported}: difference to {FULL} [%]")
    path = FOLDER / "images" / "evidence-memory.png"
    figure.suptitle(
        f"{found.task.name}, falling rate: means of {len(FRESH_SEEDS)} seeds and their"
        " standard errors",
        fontsize="medium",
    )
    figure.savefig(path, dpi=110)
    return f"![losses with fewer bits]({path.relative_to(FOLDER).as_posix()})"


def section(folder: Path | None = None) -> list[str]:
    """Lines of the section, with a folder for finished sweeps."""
    studies = {name: study(name, folder) for name in TASKS}
    last = list(studies)[-1]
    long = longer(studies[last])
    lines = [
        "## States and parameters in fewer bits",
        "",
        "`python docs/evidence_memory.py` writes this section. Optimizers train for"
        f" {STEPS} steps with their states in the codecs of `compress_state`, or AdamW"
        " with parameters in bfloat16, as `keep_bfloat16_params` rounds them or to the"
        " nearest. Codes are rounded at random where a name does not say nearest, but"
        " first moments in 4 bits below the smallest level to the nearest. Of two"
        " codecs of Adam, the first is that of the first moment. With parameters in"
        " bfloat16, gradients are rounded to it too, while the loss is computed, and"
        " the state kept, in float32. Bytes are those of a parameter and its state. The"
        " learning rate of each method is chosen from five by"
        f" {len(TUNING_SEEDS)} seeds and the validation part; numbers are those of the"
        f" test part for {len(FRESH_SEEDS)} other seeds: the median, and the lowest and"
        " highest.",
        "",
        "Each row is beside the same optimizer in float32, seed by seed: the mean"
        " difference as a share of its median, with the standard error of the mean."
        " *Better* and *worse* are by the rule at the top of this page: a difference of"
        f" more than {TOLERANCE:.0%} on {SHARE * len(FRESH_SEEDS):g} or more of the"
        f" {len(FRESH_SEEDS)} seeds, where ties count half, and in the median."
        " *Slightly better* and *slightly worse* are smaller differences, of more than"
        f" {ERRORS} standard errors. All else is within noise. Rates near the best are"
        " nearly as good, so that chance may choose another than for float32; there,"
        " the difference at the rate of float32 stands beside it.",
    ]
    for found in studies.values():
        lines += ["", f"### {found.task.name}, in fewer bits", "", *rows(found)]
    lines += [
        "",
        f"### {long.task.name}, {LONG} steps in fewer bits",
        "",
        f"Errors of rounding may need longer to matter. Here are {LONG} steps, at first"
        f" at the rate chosen for {FULL} and {STEPS} steps, which falls to 0 along a"
        " cosine.",
        "",
        *rows(long),
        "",
        picture(long),
        "",
        summary({**studies, f"{last}, {LONG} steps": long}),
        "",
        "### A long memory",
        "",
        *long_average.lines(),
    ]
    return lines


def main() -> None:
    """Writes the section and its pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    write_section("evidence_memory", section(folder))


if __name__ == "__main__":
    main()
