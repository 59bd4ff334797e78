"""Writes a section of docs/evidence.md: relatives of AdaSmooth and of momentum.

Run from the repository, with the `cli` extra: ``python docs/evidence_relatives.py``. It
takes about fifteen minutes on two cores. Every number and verdict comes from here. With
a folder as its argument, it keeps finished sweeps there, and goes on after them.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from relatives_measures import (
    WORDS,
    best_rate,
    goal_of,
    has_miss,
    median_at,
    miss,
    outcome,
    ratio,
    ratios,
    scores,
)
from relatives_methods import (
    ADAM,
    HIGH,
    METHODS,
    SPREAD,
    TASKS,
    TUNING_SEEDS,
    peer_of,
    study,
)
from relatives_picture import FURTHEST, picture
from study import FRESH_SEEDS, Study, rates, table, write_section
from verdicts import HELD, NO_DIFFERENCE, SHARE, TOLERANCE

# What its source compares with what, and where it recommends it.
CLAIMANTS = ("adasmooth", "adasmooth, normalized")
RIVALS = (ADAM, "adashift")
UNSTEADY = ("digits-wrong-labels", "jumping-quadratic", "cart-pole")
TITLES = {
    "adaptive": "Relatives of AdaSmooth and Adam",
    "momentum": "Relatives of momentum",
}


def shown(values: np.ndarray) -> str:
    """Median and range as text."""
    median, low, high = (f"{f(values):.3g}" for f in (np.median, np.min, np.max))
    return f"{median} ({low} to {high})"


def row(name: str, found: Study, method: str) -> list[str]:
    """A method's row of a task's table."""
    lost = f"{miss(name, found, method):.1%}" if has_miss(name, found) else ""
    cells = [method, rates(found, method), shown(scores(name, found, method)), lost]
    peer = peer_of(found)
    if method == peer:
        return [*cells, "", "", ""]
    wins, ties, losses, verdict = outcome(name, found, method)
    compared = f"{ratio(name, found, method, peer):.3g}"
    return [*cells, compared, f"{wins}, {ties}, {losses}", WORDS[verdict]]


def sentence(name: str, found: Study) -> str:
    """What the table of a task shows."""
    named: dict[str, list[str]] = {word: [] for word in WORDS.values()}
    peer = peer_of(found)
    for method in found.methods:
        if method != peer:
            word = WORDS[outcome(name, found, method).verdict]
            named[word].append(method)
    text = f"Beside {peer}. " + " ".join(
        f"{k.capitalize()}: {'; '.join(v) or 'none'}." for k, v in named.items()
    )
    return text + on_restarts(name, found)


def on_restarts(name: str, found: Study) -> str:
    """What restarts change, at the best rates and at one rate; empty without any."""
    restarts = [k for k in found.methods if k.startswith(f"{HIGH}, ")]
    if not restarts:
        return ""
    text = ""
    for method in restarts:
        wins, ties, losses, verdict = outcome(name, found, method, HIGH)
        text += (
            f" Beside {HIGH}, {method.partition(', ')[2]} is at"
            f" a ratio of {ratio(name, found, method, HIGH):.3g}:"
            f" {WORDS[verdict]} ({wins}, {ties}, {losses})."
        )
    for chooser in (HIGH, peer_of(found)):
        rate = best_rate(found, chooser)
        listed = "; ".join(
            f"{method} {median_at(name, found, method, rate):.3g}"
            for method in (peer_of(found), HIGH, *restarts)
        )
        text += (
            f" At {rate:.2g}, the best rate of {chooser}, medians of the seeds for"
            f" tuning are: {listed}."
        )
    return text


def lines_of(name: str, found: Study) -> list[str]:
    """The part of the section on a task."""
    setting, goal = TASKS[name], goal_of(name, found)
    chosen = "" if goal.metric == goal.reported else f", chosen by {goal.metric}"
    what = f"{goal.reported} ({goal.mode}){chosen}"
    head = ["method", "best rate", what, "rate's miss", "ratio", "won, tied, lost", ""]
    grid = setting.grid()
    return [
        "",
        f"#### {name}",
        "",
        f"{found.steps} steps, {len(grid)} rates from {grid[0]:g} to {grid[-1]:g}.",
        "",
        *table(head, [row(name, found, method) for method in found.methods]),
        "",
        sentence(name, found),
    ]


def claim(studies: Mapping[str, Study]) -> str:
    """What the source of AdaSmooth says of it, and the verdict beside each rival."""
    return (
        "**AdaSmooth is better than Adam and AdaShift under noise and"
        " non-stationarity**. Its source compares it with both, and recommends it for"
        " wrong labels, reinforcement learning and losses that change. "
        + " ".join(claim_beside(rival, studies) for rival in RIVALS)
    )


def claim_beside(rival: str, studies: Mapping[str, Study]) -> str:
    """The verdict beside one rival."""
    verdicts = {
        (method, name): outcome(name, studies[name], method, rival).verdict
        for method in CLAIMANTS
        for name in UNSTEADY
    }
    found = list(verdicts.values())
    better, worse, same = (found.count(verdict) for verdict in WORDS)
    if better == len(found):
        word = HELD
    elif better > worse:
        word = "**held in part**"
    else:
        word = "**did not hold**"
    which = "; ".join(
        f"{method} {WORDS[verdict]} on {name}"
        for (method, name), verdict in verdicts.items()
        if verdict != NO_DIFFERENCE
    )
    return (
        f"Beside {rival}, this {word}: of {len(found)} comparisons on"
        f" {', '.join(UNSTEADY)}, {better} are better, {worse} worse, and in {same}"
        f" {NO_DIFFERENCE}{which and f': {which}'}."
    )


def misses(studies: Mapping[str, Study]) -> str:
    """What it costs that rates are chosen by another metric than the reported one."""
    found = {
        f"{method} on {name}": miss(name, of_task, method)
        for name, of_task in studies.items()
        if has_miss(name, of_task)
        for method in of_task.methods
    }
    worst, values = max(found, key=found.__getitem__), np.array(list(found.values()))
    return (
        "The choice has errors of its own, where rates near the best are nearly as good"
        " in validation. The *rate's miss* says by how much the chosen rate is worse in"
        " what is reported than the best rate, among the seeds for tuning; it is empty"
        " where rates are chosen by what is reported. A ratio nearer to 1 than a miss"
        " of its two methods may come from the choice, be it better or worse. The miss"
        f" is more than {TOLERANCE:.0%} for {np.sum(values > TOLERANCE)} of"
        f" {len(values)} methods on tasks, and at most {found[worst]:.0%} ({worst})."
    )


def dots(studies: Mapping[str, Study], family: str) -> dict[str, dict[str, np.ndarray]]:
    """Ratios to the best median, by task and by method."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, of_task in studies.items():
        if TASKS[name].family == family:
            pick = min if goal_of(name, of_task).mode == "min" else max
            medians = (np.median(scores(name, of_task, k)) for k in of_task.methods)
            best = float(pick(medians))
            found[name] = {
                method: ratios(name, of_task, method, best)
                for method in of_task.methods
            }
    return found


def introduction(remark: str) -> list[str]:
    """Lines that say what is compared, and how, with a remark on rates."""
    return [
        "## Relatives of AdaSmooth and of momentum",
        "",
        "`python docs/evidence_relatives.py` writes this section. Published relatives"
        " of AdaSmooth are compared with Adam, and those of momentum with SGD with a"
        " momentum of 0.9. All arguments but the learning rate have their defaults;"
        ' *adasmooth, normalized* has `normalize=True` and `debias="product"`. On'
        " each task, all methods have the same learning rates. The best is chosen by"
        f" {len(TUNING_SEEDS)} seeds; numbers are those of {len(FRESH_SEEDS)} other"
        " seeds at that rate: the median, and the lowest and highest. The *ratio* says"
        " by what factor the median is worse than that of the peer, the first row;"
        " below 1 it is better. *Better* and *worse* are by the rule at the top of this"
        f" page: a difference of more than {TOLERANCE:.0%} on"
        f" {SHARE * len(FRESH_SEEDS):g} or more of the {len(FRESH_SEEDS)} seeds, where"
        " ties count half, and in the median. An accuracy is judged by the error, 1"
        " less the accuracy.",
        "",
        remark,
        "",
        "![methods and tasks](images/evidence-relatives.png)",
        "",
        "The picture shows by what factor each method is worse than the best median of"
        " a task: the median of the seeds, the middle half (thick) and the range"
        " (thin). Scales differ from task to task, and most are logarithmic. A triangle"
        f" at an end says that a seed is more than {FURTHEST:g} times as bad.",
    ]


NOTES = {
    "adaptive": [
        "`cart-pole` is a policy gradient (REINFORCE): the policy decides which states"
        " it sees, and so the distribution of its gradients changes as it learns. The"
        " rate is chosen by the return in other episodes than those that are reported."
        " On `jumping-quadratic`, all curvatures are equal and the gradient has no"
        " noise, so that plain SGD can reach the minimum in one step.",
    ],
    "momentum": [
        "On losses without noise, values differ by powers of ten. There, the steps in"
        " which the loss falls by a factor of ten are compared, in the mean over the"
        " run, and the rate is chosen by the last loss; *inf* stands for a loss that"
        " did not fall. Rosenbrock's function has no data: each seed has a start of its"
        f" own, normal around (−1.2, 1) with a standard deviation of {SPREAD:g}."
        " Restarts are around a momentum of 0.99. `sweep` gives no loss to `update`,"
        " which the rule by value needs; for tasks without mini-batches, the script"
        " adds it, and on `digits` that rule is left out.",
    ],
}


def section(folder: Path | None = None) -> list[str]:
    """Lines of the section, with a folder for finished sweeps."""
    studies = {name: study(name, folder) for name in TASKS}
    lines = introduction(misses(studies))
    picture({TITLES[family]: dots(studies, family) for family in METHODS})
    for family in METHODS:
        lines += ["", f"### {TITLES[family]}", "", *NOTES[family]]
        if family == "adaptive":
            lines += ["", claim(studies)]
        for name, found in studies.items():
            if TASKS[name].family == family:
                lines += lines_of(name, found)
    return lines


def main() -> None:
    """Writes the section and its picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    write_section("evidence_relatives", section(folder))


if __name__ == "__main__":
    main()
