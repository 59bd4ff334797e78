"""Writes docs/evidence.md, which compares our methods with optax's on bundled tasks.

Run from the repository, with the `cli` extra: ``python docs/evidence.py``. It takes
about ten minutes on two cores. Every number and verdict on the page comes from here.
"""

import dataclasses
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_extras as ox
from optax_extras.tasks import (
    TASKS,
    Goal,
    Task,
    batches_of_step,
    characters,
    quadratic,
)
from optax_extras.tuning import Comparison, SweepResult, sweep

FOLDER = Path(__file__).parent
RATES = np.geomspace(1e-4, 10, 11)
TUNING_SEEDS, FRESH_SEEDS = range(10), range(100, 120)
STEPS, EARLY = 300, 20
# Wins out of 20 that are significant at 5 % in a two-sided sign test.
SHOWN = 15

METHODS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "optax.sgd": optax.sgd,
    "optax.sgd, momentum 0.9": partial(optax.sgd, momentum=0.9),
    "optax.adam": optax.adam,
    "optax.adamw": optax.adamw,
    "noisy_sgd": ox.noisy_sgd,
    "noisy_sgd, eta 1": partial(ox.noisy_sgd, eta=1.0),
    "anti_pgd, stddev 0.1": partial(ox.anti_pgd, stddev=0.1),
    "momentum_sgd, Nesterov": partial(ox.momentum_sgd, nesterov=True),
    "momentum_sgd, corrected": partial(ox.momentum_sgd, bias_correction=True),
    "adasmooth": ox.adasmooth,
    "adasmooth, normalized": partial(ox.adasmooth, normalize=True, debias="product"),
}


def two_minima(
    name: str, value: Callable[[jax.Array], jax.Array], start: float, sign: float
) -> Task:
    """A function of two variables, started near its poorer minimum at (start, 0)."""
    centre = jnp.array([start, 0.0])
    return Task(
        name,
        lambda key: centre + 0.1 * jax.random.normal(key, (2,)),
        batches_of_step(lambda key, step: step),
        lambda p, batch, key: value(p),
        lambda p: {"value": value(p), "escaped": 1.0 * (sign * p[0] > 0)},
        Goal("value"),
    )


def double_well() -> Task:
    """Double well (x² − 1)² / 4 + x / 10 + y² / 2, with steep walls."""
    return two_minima(
        "double-well",
        lambda p: (p[0] ** 2 - 1) ** 2 / 4 + p[0] / 10 + p[1] ** 2 / 2,
        start=0.94,
        sign=-1.0,
    )


def two_wells() -> Task:
    """Gaussian wells of depth 0.2 and 0.6 in a shallow bowl."""

    def well(p: jax.Array, x: float, depth: float) -> jax.Array:
        return depth * jnp.exp(-2 * ((p[0] - x) ** 2 + p[1] ** 2))

    return two_minima(
        "two-wells",
        lambda p: 0.1 * jnp.sum(p**2) - well(p, -1.0, 0.2) - well(p, 1.0, 0.6),
        start=-0.75,
        sign=1.0,
    )


SETTINGS: dict[str, Callable[[], Task]] = {
    **TASKS,
    # A quarter of the width and half the batch, because this task costs most.
    "characters": partial(characters, batch_size=16, width=16),
    "quadratic, condition 1000": partial(quadratic, condition=1000.0),
    "double-well": double_well,
    "two-wells": two_wells,
}


@dataclasses.dataclass(frozen=True)
class Claim:
    """The claim that a method does better than its peer on some tasks."""

    text: str
    ours: str
    peer: str
    tasks: tuple[str, ...]
    steps: int = STEPS


HEAVY_BALL = "optax.sgd, momentum 0.9"
WELLS = ("double-well", "two-wells")
ILL_CONDITIONED = ("quadratic", "quadratic, condition 1000")
CLAIMS = (
    Claim(
        "Gradient noise helps generalisation (Neelakantan et al. 2015).",
        "noisy_sgd",
        "optax.sgd",
        ("digits", "digits-softmax", "digits-wrong-labels", "characters"),
    ),
    Claim(
        "Anticorrelated noise helps generalisation (Orvieto et al. 2022).",
        "anti_pgd, stddev 0.1",
        "optax.sgd",
        ("digits", "digits-softmax", "digits-wrong-labels", "characters"),
    ),
    Claim(
        "Gradient noise of variance 0.01 escapes a poor minimum.",
        "noisy_sgd",
        "optax.sgd",
        WELLS,
    ),
    Claim(
        "Gradient noise of variance 1 escapes a poor minimum.",
        "noisy_sgd, eta 1",
        "optax.sgd",
        WELLS,
    ),
    Claim(
        "Momentum accelerates on ill-conditioned problems (Polyak 1964).",
        HEAVY_BALL,
        "optax.sgd",
        (*ILL_CONDITIONED, "rosenbrock"),
    ),
    Claim(
        "Nesterov's momentum accelerates more than Polyak's.",
        "momentum_sgd, Nesterov",
        HEAVY_BALL,
        (*ILL_CONDITIONED, "rosenbrock", "digits"),
    ),
    Claim(
        f"Bias correction helps momentum early: after {EARLY} steps.",
        "momentum_sgd, corrected",
        HEAVY_BALL,
        ("digits", "breast-cancer", "characters", *ILL_CONDITIONED),
        EARLY,
    ),
    Claim(
        "AdaSmooth beats Adam under label noise and non-stationarity.",
        "adasmooth",
        "optax.adam",
        ("digits-wrong-labels", "jumping-quadratic", "digits"),
    ),
    Claim(
        "AdaSmooth with `normalize` and `debias` beats Adam on these tasks.",
        "adasmooth, normalized",
        "optax.adam",
        ("digits-wrong-labels", "jumping-quadratic", "digits"),
    ),
)


@cache
def task(name: str) -> Task:
    """Cached task, so that sweeps share its compiled programs."""
    return SETTINGS[name]()


@cache
def tuned(name: str, method: str, steps: int) -> SweepResult:
    """Sweep over all learning rates with the seeds for tuning."""
    mesh = jax.make_mesh((len(jax.devices()),), ("trials",))
    return sweep(
        task(name),
        METHODS[method],
        {"learning_rate": RATES},
        steps=steps,
        seeds=TUNING_SEEDS,
        eval_every=max(1, steps // 10),
        mesh=mesh,
    )


@cache
def fresh(name: str, method: str, steps: int) -> SweepResult:
    """The best of these rates, with seeds that were not used to choose it."""
    best = tuned(name, method, steps).best()["learning_rate"]
    return sweep(
        task(name),
        METHODS[method],
        {"learning_rate": [best]},
        steps=steps,
        seeds=FRESH_SEEDS,
        eval_every=max(1, steps // 10),
    )


def score(name: str, method: str, steps: int, metric: str | None = None) -> np.ndarray:
    """Final metric of each fresh seed, by default that of the goal."""
    return fresh(name, method, steps).final(metric or task(name).goal.metric)[0]


def spread(values: np.ndarray) -> str:
    """Median and range as text."""
    if not np.isfinite(np.median(values)):
        return "diverged"
    median, low, high = (f"{f(values):.3g}" for f in (np.median, np.min, np.max))
    return f"{median} ({low} to {high})"


def verdict(wins: float) -> str:
    """The verdict for a number of wins of the fresh seeds; a tie counts one half."""
    if wins >= SHOWN:
        return "**held**"
    if wins <= len(FRESH_SEEDS) - SHOWN:
        return "**did not hold: the peer was better**"
    return "no difference was shown"


def claim_rows(claim: Claim) -> list[str]:
    """Markdown rows of a claim, one for each task."""
    rows = []
    for name in claim.tasks:
        goal = task(name).goal
        pair = [score(name, m, claim.steps) for m in (claim.ours, claim.peer)]
        sign = 1 if goal.mode == "min" else -1
        ours, peer = (np.nan_to_num(sign * x, nan=np.inf) for x in pair)
        wins = float(np.sum(ours < peer) + np.sum(ours == peer) / 2)
        rows.append(
            f"| {name} | {goal.metric} ({goal.mode}) | {spread(pair[0])} |"
            f" {spread(pair[1])} | {wins:g} of {len(ours)} | {verdict(wins)} |"
        )
    return rows


def task_table(name: str) -> list[str]:
    """Markdown table of a task, with a row for each method."""
    goal = task(name).goal
    values = {m: score(name, m, STEPS) for m in METHODS}
    sign = 1 if goal.mode == "min" else -1
    medians = {m: sign * np.median(v) for m, v in values.items()}
    ranked = sorted(METHODS, key=lambda m: np.nan_to_num(medians[m], nan=np.inf))
    rows = [
        f"| method | best rate | {goal.metric} ({goal.mode}) | diverged |",
        "|---|---|---|---|",
    ]
    for method in ranked:
        swept = tuned(name, method, STEPS)
        rate = swept.best()["learning_rate"]
        edge = " (end of the grid)" if rate in (RATES[0], RATES[-1]) else ""
        rows.append(
            f"| {method} | {rate:.2g}{edge} | {spread(values[method])} |"
            f" {swept.diverged().sum()} of {swept.diverged().size} |"
        )
    return rows


def picture(name: str) -> str:
    """Draws the comparison of a task, and returns its path relative to the page."""
    file = name.replace(",", "").replace(" ", "-")
    path = FOLDER / "images" / f"evidence-{file}.png"
    title = f"{name}: {len(RATES)} learning rates × {len(TUNING_SEEDS)} seeds"
    comparison = Comparison({m: tuned(name, m, STEPS) for m in METHODS})
    comparison.plot(f"{title}, {STEPS} steps").savefig(path, dpi=80)
    return path.relative_to(FOLDER).as_posix()


def page() -> str:
    """Text of the page."""
    lines = [
        "# Evidence",
        "",
        "`python docs/evidence.py` writes this page; only the claims are written by"
        " hand.",
        "",
        "On each task, each method is trained for"
        f" {STEPS} steps with the same {len(RATES)} learning rates from {RATES[0]:g} to"
        f" {RATES[-1]:g}. Its rate is chosen by {len(TUNING_SEEDS)} seeds. The numbers"
        f" are from {len(FRESH_SEEDS)} other seeds at that rate: the median, and the"
        " lowest and highest. Both methods of a pair get the same initial parameters"
        " and mini-batches. A claim *held* on a task if the method did better than its"
        f" peer on {SHOWN} or more of the {len(FRESH_SEEDS)} seeds (two-sided sign"
        " test, p = 0.04), and did not hold if the peer did. Many rows are tested, so a"
        " single one means little. Rosenbrock's function and the line have nothing"
        " random: all seeds of a method without noise are the same run there. All other"
        " arguments have their defaults.",
        "",
        "## The claims",
    ]
    for claim in CLAIMS:
        lines += [
            "",
            f"### {claim.text}",
            "",
            f"`{claim.ours}` beside `{claim.peer}`, {claim.steps} steps.",
            "",
            "| task | metric | ours | peer | better on | |",
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
        "The best method is first. The pictures show the seeds for tuning: lines are"
        " medians, bands are ranges.",
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
    (FOLDER / "evidence.md").write_text(page())


if __name__ == "__main__":
    main()
