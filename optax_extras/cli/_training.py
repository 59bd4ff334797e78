"""The commands that train, and their options."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from optax_extras._core.interrupts import interrupts_between_calls
from optax_extras.cli import _compare, _range, _report
from optax_extras.cli._methods import GIVEN_TO_METHODS, METHODS
from optax_extras.cli._optimizers import OPTIMIZERS, blamed_on, check_step, load_factory
from optax_extras.cli._options import (
    BATCH_SIZE,
    BUDGET,
    CLIP,
    JSON,
    MAX_LR,
    MIN_LR,
    OPTIMIZER_HELP,
    OUT,
    SEEDS,
    STEPS,
    TARGET,
    TASK,
    only_results_on_stdout,
    prepare_folder,
    say_written,
    use_devices,
)
from optax_extras.tasks import load_task
from optax_extras.tuning import Comparison, SweepResult, lr_range_test

_LR_RANGE: Any = lr_range_test.__kwdefaults__


def compare(
    task: TASK = "digits",
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTIMIZER",
            help=f"{OPTIMIZER_HELP}; repeatable. By default all of these.",
        ),
    ] = None,
    budget: BUDGET = 11,
    min_lr: MIN_LR = 1e-4,
    max_lr: MAX_LR = 10.0,
    seeds: SEEDS = 5,
    steps: STEPS = 300,
    batch_size: BATCH_SIZE = None,
    clip: CLIP = None,
    out: OUT = Path("optax-extras-out"),
    json: JSON = False,
) -> None:
    """Train a task with each optimizer, over the same learning rates and seeds."""
    use_devices(os.cpu_count())
    with only_results_on_stdout():
        plan = _compare.Plan(
            task=_compare.task_of(task, batch_size),
            optimizers={name: load_factory(name) for name in optimizer or OPTIMIZERS},
            learning_rates=_compare.grid(min_lr, max_lr, budget),
            seeds=seeds,
            steps=steps,
            clip=clip,
        )
    _train("compare", plan, out, json)


def communicate(
    task: TASK = "digits(hidden=256)",
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD",
            help="A function of `learning_rate`, `axis_name` and `workers` at "
            + TARGET.format(", ".join(METHODS), "power-sgd(rank=4)")
            + "; repeatable. By default all of these.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of devices that train together.")
    ] = 8,
    budget: BUDGET = 5,
    min_lr: MIN_LR = 0.003,
    max_lr: MAX_LR = 0.3,
    seeds: SEEDS = 3,
    steps: STEPS = 200,
    batch_size: BATCH_SIZE = None,
    clip: CLIP = None,
    out: OUT = Path("optax-extras-out"),
    json: JSON = False,
) -> None:
    """Train a task on several workers, and compare loss and bytes of each method."""
    use_devices(workers)
    with only_results_on_stdout():
        names = method or METHODS
        plan = _compare.Plan(
            task=_compare.task_of(task, batch_size),
            optimizers={
                name: load_factory(name, METHODS, GIVEN_TO_METHODS, "--method")
                for name in names
            },
            learning_rates=_compare.grid(min_lr, max_lr, budget),
            seeds=seeds,
            steps=steps,
            clip=clip,
            workers=workers,
        )
    _train("communicate", plan, out, json)


def _train(command: str, plan: _compare.Plan, out: Path, json: bool) -> None:
    """Runs the sweeps of a plan, and reports what is finished also after Ctrl-C."""
    sweeps: dict[str, SweepResult] = {}
    paths: list[Path] = []
    interrupted = False
    with only_results_on_stdout():
        prepare_folder(out)
        try:
            with interrupts_between_calls():
                for name in plan.optimizers:
                    finished = {**sweeps, name: plan.run(name)}
                    paths = _report.write(Comparison(finished), out)
                    sweeps = finished
        except KeyboardInterrupt:
            interrupted = True
            kept = ", ".join(sweeps) or "nothing"
            print(f"optax-extras: interrupted; finished: {kept}", file=sys.stderr)
        if sweeps:  # once: drawing takes about as long as a small sweep
            paths.append(_report.draw(Comparison(sweeps), out, command, plan.caption))
    if sweeps and json:
        print(_report.to_json(Comparison(sweeps), plan.caption))
    elif sweeps:
        console = Console()
        comparison = Comparison(sweeps)
        console.print(*_report.render(comparison, plan.caption, console.width))
        say_written(console, paths)
    if interrupted:
        raise typer.Abort


def lr_range(
    task: TASK = "digits",
    optimizer: Annotated[
        str, typer.Option(metavar="OPTIMIZER", help=f"{OPTIMIZER_HELP}.")
    ] = "sgd",
    min_lr: Annotated[float, typer.Option(help="First learning rate.")] = _LR_RANGE[
        "min_lr"
    ],
    max_lr: Annotated[float, typer.Option(help="Last learning rate.")] = _LR_RANGE[
        "max_lr"
    ],
    steps: Annotated[int, typer.Option(help="Updates of each run.")] = _LR_RANGE[
        "steps"
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs.")] = _LR_RANGE[
        "seeds"
    ],
    smoothing: Annotated[
        float, typer.Option(help="Decay of the average of the losses.")
    ] = _LR_RANGE["smoothing"],
    out: OUT = Path("optax-extras-out"),
    json: JSON = False,
) -> None:
    """Suggest learning rates by training with one that grows at every step."""
    with only_results_on_stdout():
        loaded, factory = load_task(task), load_factory(optimizer)
        check_step(optimizer, factory, loaded)
        prepare_folder(out)
        with blamed_on(optimizer, loaded):
            result = lr_range_test(
                loaded,
                factory,
                min_lr=min_lr,
                max_lr=max_lr,
                steps=steps,
                seeds=seeds,
                smoothing=smoothing,
            )
        caption = f"{optimizer} on {result.task}, {steps} steps, {seeds} seeds"
        path = out / "lr-range.png"
        result.plot(caption).savefig(path, dpi=150)
    if json:
        print(_range.to_json(result, optimizer))
    else:
        console = Console()
        console.print(*_range.render(result, caption, console.width))
        say_written(console, [path])
