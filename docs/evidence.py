"""Writes docs/evidence.md, which compares our methods with optax's on bundled tasks.

The last sections stay: scripts of their own write them, such as
docs/evidence_communication.py.

Run from the repository, with the `cli` extra: ``python docs/evidence.py``. It takes
about fifteen minutes on two cores. Every number and verdict on the page comes from
here.
"""

import dataclasses
import os
from functools import cache
from pathlib import Path

import jax
import numpy as np
from claims import CLAIMS, METHODS, SETTINGS, STEPS, TUNED, WELLS, Claim
from study import mark
from verdicts import SHARE, TOLERANCE, cost, judge

from optax_extras.tasks import Goal, Task
from optax_extras.tuning import Comparison, SweepResult, sweep

FOLDER = Path(__file__).parent
RATES = np.geomspace(1e-4, 10, 11)
TUNING_SEEDS, FRESH_SEEDS = range(10), range(100, 120)


@cache
def task(name: str) -> Task:
    """Cached task, so that sweeps share its compiled programs."""
    return SETTINGS[name]()


@cache
def tuned(name: str, method: str, steps: int) -> SweepResult:
    """Sweep over all hyperparameters with the seeds for tuning."""
    mesh = jax.make_mesh((len(jax.devices()),), ("trials",))
    return sweep(
        task(name),
        METHODS[method],
        {"learning_rate": RATES, **TUNED.get(method, {})},
        steps=steps,
        seeds=TUNING_SEEDS,
        eval_every=max(1, steps // 10),
        mesh=mesh,
    )


@cache
def fresh(name: str, method: str, steps: int) -> SweepResult:
    """The best of these settings, with seeds that were not used to choose it."""
    best = tuned(name, method, steps).best()
    return sweep(
        task(name),
        METHODS[method],
        {name: [value] for name, value in best.items()},
        steps=steps,
        seeds=FRESH_SEEDS,
        eval_every=max(1, steps // 10),
    )


def curves(name: str, method: str, steps: int, metric: str | None = None) -> np.ndarray:
    """Metric of each fresh seed at each evaluation, by default what is reported."""
    return fresh(name, method, steps).curves(metric or task(name).goal.reported)[0]


def score(name: str, method: str, steps: int, metric: str | None = None) -> np.ndarray:
    """Final value of `curves`."""
    return curves(name, method, steps, metric)[:, -1]


def spread(values: np.ndarray) -> str:
    """Median and range as text."""
    if not np.isfinite(np.median(values)):
        return "diverged"
    median, low, high = (f"{f(values):.3g}" for f in (np.median, np.min, np.max))
    return f"{median} ({low} to {high})"


def described(goal: Goal) -> str:
    """Metrics of a goal as text."""
    chosen = "" if goal.metric == goal.reported else f", chosen by {goal.metric}"
    return f"{goal.reported} ({goal.mode}){chosen}"


def claim_rows(claim: Claim) -> list[str]:
    """Markdown rows of a claim, one for each task."""
    rows = []
    for name in claim.tasks:
        goal = task(name).goal
        method, peer = (score(name, m, claim.steps) for m in (claim.method, claim.peer))
        start = np.median(np.abs(curves(name, claim.peer, claim.steps)[:, 0]))
        resolution = 0.0 if claim.speed else float(np.finfo(np.float32).eps * start)
        outcome = judge(cost(method, goal), cost(peer, goal), resolution)
        rows.append(
            f"| {name} | {described(goal)} | {spread(method)} | {spread(peer)} |"
            f" {outcome.wins}, {outcome.ties}, {outcome.losses} | {outcome.verdict} |"
        )
    return rows


def setting(swept: SweepResult) -> str:
    """Best hyperparameters as text, with a note on those at the end of their grid."""
    texts = []
    for name, value in swept.best().items():
        values = swept.hyperparameters[name]
        edge = " (end of the grid)" if value in (values.min(), values.max()) else ""
        label = "" if name == "learning_rate" else f"{name} "
        texts.append(f"{label}{value:.2g}{edge}")
    return ", ".join(texts)


def task_table(name: str) -> list[str]:
    """Markdown table of a task, with a row for each method."""
    goal = task(name).goal
    values = {m: score(name, m, STEPS) for m in METHODS}
    ranked = sorted(METHODS, key=lambda m: np.median(cost(values[m], goal)))
    rows = [
        f"| method | best rate | {described(goal)} | diverged |",
        "|---|---|---|---|",
    ]
    for method in ranked:
        gone = tuned(name, method, STEPS).diverged()
        rows.append(
            f"| {method} | {setting(tuned(name, method, STEPS))} |"
            f" {spread(values[method])} | {gone.sum()} of {gone.size} |"
        )
    return rows


def over_rates(swept: SweepResult) -> SweepResult:
    """The rows of a sweep with the best values of what is not the learning rate."""
    rates, best = swept.hyperparameters["learning_rate"], swept.best()
    held = np.full(len(rates), True)
    for name, values in swept.hyperparameters.items():
        if name != "learning_rate":
            held &= values == best[name]
    return dataclasses.replace(
        swept,
        hyperparameters={"learning_rate": rates[held]},
        metrics={name: values[held] for name, values in swept.metrics.items()},
        losses=swept.losses[held],
        initial_losses=swept.initial_losses[held],
        planned=int(held.sum()),
    )


def picture(name: str) -> str:
    """Draws the comparison of a task, and returns its path relative to the page."""
    file = name.replace(",", "").replace(" ", "-")
    path = FOLDER / "images" / f"evidence-{file}.png"
    title = f"{name}: {len(RATES)} learning rates × {len(TUNING_SEEDS)} seeds"
    comparison = Comparison({m: over_rates(tuned(name, m, STEPS)) for m in METHODS})
    comparison.plot(f"{title}, {STEPS} steps").savefig(path, dpi=110)
    return path.relative_to(FOLDER).as_posix()


def number_of_settings(method: str) -> int:
    """Number of hyperparameter settings that a method is tuned over."""
    return len(RATES) * int(np.prod([len(v) for v in TUNED.get(method, {}).values()]))


def page() -> str:
    """Text of the page."""
    needed = SHARE * len(FRESH_SEEDS)
    lines = [
        "# Evidence",
        "",
        "`python docs/evidence.py` writes this page; only the claims are written by"
        " hand.",
        "",
        "On each task, each method is trained for"
        f" {STEPS} steps with the same {len(RATES)} learning rates from {RATES[0]:g} to"
        f" {RATES[-1]:g}. Where a method's name says that a second hyperparameter is"
        " tuned, it is trained with each of a few values of that at each rate. The"
        f" setting is chosen by {len(TUNING_SEEDS)} seeds. The numbers are from"
        f" {len(FRESH_SEEDS)} other seeds at that setting: the median, and the lowest"
        " and highest. On tasks whose goal is to generalise, the setting is chosen by"
        " the validation part of the data and the numbers are of the test part. Both"
        " methods of a pair get the same initial parameters and mini-batches. All other"
        " arguments have their defaults.",
        "",
        "**When a difference counts.** On a seed, a method *won* if it did better than"
        f" its peer by more than {TOLERANCE:.0%} of the peer's median. A smaller"
        " difference is a *tie*, which counts as half a win. So is one below the"
        " resolution of float32, 1.2e-7 of the initial value: 1e-12 and 1e-16 are both"
        " solutions of a problem that started at 1. A claim about speed is about how"
        " far a method has come, and there values below that resolution are compared"
        f" like others. A claim *held* on a task if its method won on {needed:g} or"
        f" more of the {len(FRESH_SEEDS)} seeds (two-sided sign test, p = 0.04) and"
        " its median is"
        " better by a difference that counts; it *did not hold* if the same is true of"
        " the peer. Many rows are tested, so a single one means little. Rosenbrock's"
        " function and the line have nothing random: all seeds of a method without"
        " noise are the same run there.",
        "",
        "## The claims",
    ]
    for claim in CLAIMS:
        lines += [
            "",
            f"### {claim.text}",
            "",
            f"Method: `{claim.method}`, the best of {number_of_settings(claim.method)}"
            f" settings. Peer: `{claim.peer}`, the best of"
            f" {number_of_settings(claim.peer)}. {claim.steps} steps.",
            *(["", claim.note] if claim.note else []),
            "",
            "| task | metric | method | peer | won, tied, lost | |",
            "|---|---|---|---|---|---|",
            *claim_rows(claim),
        ]
    for name in WELLS:
        shares = "; ".join(
            f"{method} {100 * np.mean(score(name, method, STEPS, 'escaped')):.0f} %"
            for method in METHODS
        )
        text = f"Seeds that left the poorer minimum on {name}: {shares}."
        lines += ["", text]
    lines += [
        "",
        "## The tasks",
        "",
        "The best method is first. The pictures show the seeds for tuning, at the best"
        " values of what is tuned beside the rate: lines are medians, bands are"
        " ranges.",
    ]
    for name in SETTINGS:
        lines += [
            "",
            f"### {name}",
            "",
            *task_table(name),
            "",
            f"![{name}]({picture(name)})",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the page and its pictures."""
    (FOLDER / "images").mkdir(exist_ok=True)
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    path = FOLDER / "evidence.md"
    _, start, rest = path.read_text().partition(mark("evidence_communication"))
    path.write_text(page() + (f"\n{start}{rest}" if start else ""))


if __name__ == "__main__":
    main()
