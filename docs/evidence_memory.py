"""Writes a section of docs/evidence.md: states and parameters in fewer bits.

Run from the repository, with the `cli` extra: ``python docs/evidence_memory.py``. It
takes about half an hour on two cores. Every number and verdict comes from here. With a
folder as its argument, it keeps finished sweeps there, and goes on after them.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import long_average
import numpy as np
from memory_methods import (
    FULL,
    LONG,
    STEPS,
    TASKS,
    TUNING_SEEDS,
    WITH_PARAMETERS,
    longer,
    study,
)
from study import (
    FRESH_SEEDS,
    Study,
    ends,
    fresh,
    picture,
    rates,
    spread,
    table,
    write_section,
)
from verdicts import HELD, LOST, NO_DIFFERENCE, SHARE, TOLERANCE, Outcome, cost, judge

NOISE = "within noise"
WORDS = {HELD: "better", LOST: "worse", NO_DIFFERENCE: NOISE}


def peer_of(method: str) -> str:
    """The same optimizer in float32."""
    return f"{method.split(',')[0]}, {FULL}"


def outcome(found: Study, method: str) -> Outcome:
    """The verdict on a method beside its peer."""
    goal = found.task.goal
    return judge(*(cost(ends(found, k), goal) for k in (method, peer_of(method))))


def difference(found: Study, method: str) -> str:
    """Mean over seeds of the difference to the peer, with its standard error."""
    peer = ends(found, peer_of(method))
    parts = (ends(found, method) - peer) / np.median(peer)
    if not np.isfinite(parts).all():
        return "diverged"
    error = parts.std(ddof=1) / len(parts) ** 0.5
    return f"{parts.mean():+.1%} ± {error:.1%}"


def row(found: Study, method: str) -> list[str]:
    """A method's row of a task's table."""
    of_parameter = 4 if found.methods[method].task is None else 2
    size = of_parameter + fresh(found, method).state_bytes_per_parameter
    cells = [method, f"{size:.1f}", rates(found, method), spread(ends(found, method))]
    if method == peer_of(method):
        return [*cells, "", "", ""]
    wins, ties, losses, verdict = outcome(found, method)
    counts = f"{wins}, {ties}, {losses}"
    return [*cells, difference(found, method), counts, WORDS[verdict]]


def rows(found: Study) -> list[str]:
    """Lines of a task's table."""
    head = ["method", "bytes for each parameter", "best rate", found.task.goal.reported]
    head += ["difference to float32", "won, tied, lost", ""]
    return table(head, [row(found, method) for method in found.methods])


def summary(studies: Mapping[str, Study]) -> str:
    """What the tables show."""
    named: dict[str, list[str]] = {word: [] for word in WORDS.values()}
    for name, found in studies.items():
        for method in found.methods:
            if method != peer_of(method):
                verdict = WORDS[outcome(found, method).verdict]
                named[verdict].append(f"{method} ({name})")
    counts = {word: len(found) for word, found in named.items()}
    total = sum(counts.values())
    parts = [
        f"{word} in {counts[word]}: {'; '.join(named[word])}"
        for word in ("worse", "better")
        if counts[word]
    ]
    noise = f"Of {total} rows beside a peer, {counts[NOISE]} are within noise"
    return f"{', '.join([noise, *parts])}."


def drawn(found: Study, name: str, methods: Sequence[str], shows: str) -> str:
    """Draws some of the methods, and returns the line that shows the picture."""
    some = {k: found.methods[k] for k in methods}
    part = dataclasses.replace(found, name=name, methods=some, chosen_by=found)
    return picture(part, shows)


def section() -> list[str]:
    """Lines of the section."""
    studies = {name: study(name) for name in TASKS}
    last = list(studies)[-1]
    long = longer(studies[last])
    adam = [k for k in studies[last].methods if k.startswith("Adam,")]
    adamw = [k for k in studies[last].methods if k.startswith(f"{WITH_PARAMETERS},")]
    lines = [
        "## States and parameters in fewer bits",
        "",
        "`python docs/evidence_memory.py` writes this section. Optimizers train for"
        f" {STEPS} steps with their states in the codecs of `compress_state`, or AdamW"
        " with parameters in bfloat16, as `keep_bfloat16_params` rounds them or to the"
        " nearest. Codes are rounded at random where a name does not say nearest; of"
        " two codecs of Adam, the first is that of the first moment. With parameters in"
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
        f" {len(FRESH_SEEDS)} seeds, where ties count half, and in the median. All else"
        " is within noise.",
    ]
    for found in studies.values():
        lines += ["", f"### {found.task.name}, in fewer bits", "", *rows(found)]
    lines += [
        "",
        drawn(studies[last], "memory-states", adam[:6], "states in fewer bits"),
        "",
        drawn(studies[last], "memory-parameters", adamw, "parameters in bfloat16"),
        "",
        f"### {long.task.name}, {LONG} steps in fewer bits",
        "",
        f"Errors of rounding may need longer to matter. Here are {LONG} steps at the"
        f" rates chosen for {STEPS}, from which they fall to 0 along a cosine.",
        "",
        *rows(long),
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
    write_section("evidence_memory", section())


if __name__ == "__main__":
    main()
