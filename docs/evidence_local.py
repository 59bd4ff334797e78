"""Writes a section of docs/evidence.md: workers that train alone, against bytes.

Run from the repository, with the `cli` extra: ``python docs/evidence_local.py``. It
takes about half an hour on two cores. Every number and verdict comes from here. With a
folder as its argument, it keeps finished sweeps there, and goes on after them.
"""

import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from study import AXIS, FRESH_SEEDS, Method, Study, gap, table, tuned, write_section
from worker_study import CLOSE, TUNING_SEEDS, WORKERS, columns, own, picture, sgd

import optax_extras as ox
from optax_extras import compressors
from optax_extras.tasks import characters, digits, federated_digits

STEPS, WARM_UP, LONGER = 300, 40, 4
DENSE = "dense SGD", "dense AdamW"
WITH_SGD = DENSE[0], "8 bit", "DGC 1 %", "LocalSGD, H = 10"
MUST = "DiLoCo, H = 30", "SparseLoCo, H = 30"
HEAD = (
    *("method", "best rates", "MB sent", "MB received", "test loss"),
    *("gap to the better dense", "gap to its own dense"),
)


def dense_adamw(learning_rate: Any) -> optax.GradientTransformation:
    """AdamW after a dense mean."""
    mean = ox.compressed_mean(compressors.Dense(), AXIS, workers=WORKERS)
    return optax.chain(mean, optax.adamw(learning_rate))


def local(make: Any, inner: Any, every: int, **options: Any) -> Any:
    """Local updates with both of their rates."""

    def make_local(learning_rate: Any, outer_rate: Any) -> Any:
        return make(
            inner(learning_rate),
            learning_rate=outer_rate,
            every=every,
            axis_name=AXIS,
            workers=WORKERS,
            **options,
        )

    return make_local


def methods(
    sgd_rates: Any, adamw_rates: Any, first: int, outer_rates: Sequence[float]
) -> dict[str, Method]:
    """The methods, with grids around learning rates that suit a task.

    Args:
      sgd_rates: with SGD.
      adamw_rates: with AdamW.
      first: index of the first of the three among them for workers that train alone.
      outer_rates: of DiLoCo.
    """
    momentum = partial(optax.sgd, momentum=0.9)
    dgc = own(ox.deep_gradient_compression, density=0.01, warmup_steps=WARM_UP)
    with_sgd = {
        DENSE[0]: sgd(compressors.Dense()),
        "8 bit": sgd(compressors.quantized(8)),
        "DGC 1 %": dgc,
    }
    apart = {
        "DiLoCo, H = 10": local(ox.diloco, optax.adamw, 10),
        MUST[0]: local(ox.diloco, optax.adamw, 30),
        "DiLoCo, H = 100": local(ox.diloco, optax.adamw, 100),
    }
    sparse = {
        MUST[1]: local(ox.sparse_loco, optax.adamw, 30),
        "SparseLoCo, H = 30, an eighth": local(
            ox.sparse_loco, optax.adamw, 30, density=1 / 8
        ),
    }
    few = adamw_rates[first : first + 3]
    return {
        **{
            k: Method(make, {"learning_rate": sgd_rates})
            for k, make in with_sgd.items()
        },
        DENSE[1]: Method(dense_adamw, {"learning_rate": adamw_rates}),
        "DeMo": Method(own(ox.demo), {"learning_rate": adamw_rates / 3}),
        "LocalSGD, H = 10": Method(
            local(ox.fedavg, momentum, 10),
            {"learning_rate": sgd_rates[1:4], "outer_rate": [0.7, 1.0, 1.4]},
        ),
        **{
            k: Method(make, {"learning_rate": few, "outer_rate": outer_rates})
            for k, make in apart.items()
        },
        **{
            k: Method(make, {"learning_rate": few, "outer_rate": [0.5, 1.0, 2.0, 4.0]})
            for k, make in sparse.items()
        },
    }


def study(name: str) -> Study:
    """The methods on a task."""
    small = np.array([0.003, 0.01, 0.03, 0.1, 0.3])
    outer = [0.05, 0.1, 0.2, 0.4]
    tasks = {
        "digits": (partial(digits, hidden=256), small, small / 10, 1, outer),
        "characters": (
            partial(characters, length=16, width=32),
            small * 10,
            small / 1.5,
            1,
            [0.1, 0.2, 0.4, 0.7],
        ),
        "federated-0.1": (partial(federated_digits, 0.1), small, small / 10, 2, outer),
        "federated-1.0": (partial(federated_digits, 1.0), small, small / 10, 2, outer),
    }
    make_task, *grids = tasks[name]
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    return Study(
        f"local-{name}",
        make_task(),
        methods(*grids),
        STEPS,
        TUNING_SEEDS,
        WORKERS,
        folder,
    )


TASKS = "digits", "characters", "federated-0.1", "federated-1.0"


def best_dense(found: Study) -> str:
    """The dense method with the lower median."""
    return DENSE[0] if gap(found, DENSE[1], DENSE[0]) >= 0 else DENSE[1]


def own_dense(method: str) -> str:
    """The dense method with the optimizer that a method's workers have."""
    return DENSE[0] if method in WITH_SGD else DENSE[1]


def row(found: Study, method: str) -> list[str]:
    """A method's row of a task's table."""
    peers = best_dense(found), own_dense(method)
    gaps = [f"{gap(found, method, peer):+.1%}" for peer in peers]
    return [*columns(found, method), *gaps]


def verdict(found: Study) -> str:
    """What the numbers of a task say."""
    dense = best_dense(found)
    others = [name for name in found.methods if name not in DENSE]
    gaps = {name: gap(found, name, dense) for name in others}
    own_gaps = {name: gap(found, name, own_dense(name)) for name in others}

    def listed(names: list[str]) -> str:
        return "; ".join(names) or "none"

    close = [k for k in others if gaps[k] <= CLOSE]
    only_own = [k for k in others if own_gaps[k] <= CLOSE < gaps[k]]
    failed = [f"{k} ({own_gaps[k]:+.1%})" for k in others if own_gaps[k] > CLOSE]
    return (
        f"Within {CLOSE:.0%} of the better dense method, which is {dense}, or below it:"
        f" {listed(close)}. Only of the dense method with their own optimizer:"
        f" {listed(only_own)}. Of neither, with the gap to the latter:"
        f" {listed(failed)}."
    )


def longer(found: Study) -> Study:
    """The same with more steps, and so more exchanges, at the same rates."""
    name = f"{found.name}-longer"
    return dataclasses.replace(
        found, name=name, steps=LONGER * found.steps, chosen_by=partial(tuned, found)
    )


def cause(found: Study) -> str:
    """Whether the gaps come from the small number of exchanges."""
    long = longer(found)
    gaps = {name: [gap(one, name, DENSE[1]) for one in (found, long)] for name in MUST}
    changes = "; ".join(f"{k} {a:+.1%} and {b:+.1%}" for k, (a, b) in gaps.items())
    shrinks = [k for k, (a, b) in gaps.items() if b < a]
    less = " and ".join(shrinks) or "neither"
    return (
        f"With {long.steps} steps at the rates chosen for {found.steps}, and thus"
        f" {long.steps // 30} exchanges in place of {found.steps // 30}, the gaps to"
        f" dense AdamW at first and now are: {changes}. More exchanges make the gap"
        f" smaller for: {less}."
    )


def section() -> list[str]:
    """Lines of the section."""
    lines = [
        "## Workers that train alone",
        "",
        "`python docs/evidence_local.py` writes this section, in the way of the one"
        f" above, with {STEPS} steps. Workers that train alone do so with AdamW, in"
        " LocalSGD with SGD and momentum 0.9, as the dense method, 8 bit and DGC have"
        " it, and dense AdamW is there beside it. Gaps are those to the better of the"
        " two, and to the one with a method's own optimizer, which for DeMo is AdamW."
        " An inner rate from three and an outer rate from three or four, or the one"
        " rate of the other methods from five, are chosen together by"
        f" {len(TUNING_SEEDS)} seeds and the validation part; losses are those of the"
        f" test part for {len(FRESH_SEEDS)} other seeds, of the parameters that the"
        " workers agreed on last. The outer optimizer of DiLoCo has Nesterov momentum"
        " 0.9. SparseLoCo sends a 64th of the entries at each of its"
        f" {STEPS // 30} exchanges, which makes"
        f" {STEPS // 30 / 64:.0%} of as many entries as there are; beside it is one"
        " that sends an eighth. Each worker of the federated tasks has the digits of"
        " one client, and counts in the means by their number.",
    ]
    for name in TASKS:
        found = study(name)
        lines += [
            "",
            f"### {found.task.name}, workers that train alone",
            "",
            *table(HEAD, [row(found, method) for method in found.methods]),
            "",
            verdict(found),
            *([f"\n{cause(found)}"] if name == "characters" else []),
            "",
            picture(found),
        ]
    return lines


def main() -> None:
    """Writes the section and its pictures."""
    jax.config.update("jax_num_cpu_devices", WORKERS)
    write_section("evidence_local", section())


if __name__ == "__main__":
    main()
