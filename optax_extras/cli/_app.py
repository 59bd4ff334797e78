"""The commands and their options."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn
from rich.text import Text

from optax_extras._core.interrupts import interrupts_between_calls
from optax_extras.cli import _catalogue, _check, _compare, _range, _report, _rules
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
    say_version,
    say_written,
    use_devices,
)
from optax_extras.cli._text import paragraph
from optax_extras.tasks import load_task
from optax_extras.testing import CAPABILITIES, Result, aliases_of, iter_checks
from optax_extras.tuning import Comparison, SweepResult, lr_range_test

_LR_RANGE: Any = lr_range_test.__kwdefaults__

app = typer.Typer(
    help="Compare, tune, check and list optimizers for JAX.",
    epilog="With OPTAX_EXTRAS_TRACEBACK=1 in the environment, errors show where they"
    " come from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=say_version,
            is_eager=True,
            help="Print the version, and those of jax and optax.",
        ),
    ] = False,
) -> None:
    """Options that no command is needed for."""


@app.command()
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


@app.command()
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


@app.command("lr-range")
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


@app.command()
def check(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="A function that makes the transformation, or a Spec, at "
            + TARGET.format(", ".join(OPTIMIZERS), "mine:opt(learning_rate=0.1)")
            + ". Numbers with a decimal point are taken for hyperparameters.",
        ),
    ] = None,
    supports: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLAG",
            help=f"A capability: {', '.join(CAPABILITIES)}; repeatable.",
        ),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TRANSFORMATION.]CHECK=REASON",
            help="A known failure, which no longer counts as one, while a pass does;"
            " repeatable.",
        ),
    ] = None,
    all_of: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            help="Check every optimizer of a module, such as optax: functions with"
            " `learning_rate` that are annotated to return a GradientTransformation;"
            " repeatable.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Run this check and no others; repeatable."),
    ] = None,
    slow: Annotated[
        bool, typer.Option("--slow", help="Run the slow tier too.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Show what passed too; with --all-of, show what was found.",
        ),
    ] = False,
    json: JSON = False,
) -> None:
    """Check that a gradient transformation keeps the contract of JAX and optax."""
    if (target is None) == (not all_of):
        raise typer.BadParameter("give a TARGET or --all-of, one of the two.")
    if all_of and supports:
        raise typer.BadParameter("--supports goes with a TARGET.")
    use_devices(8)
    results: list[Result] = []
    interrupted = False
    with only_results_on_stdout():
        if target is not None:
            specs = [_check.load_spec(target, supports or [])]
        else:
            specs = [spec for module in all_of or [] for spec in aliases_of(module)]
        specs = _check.expect(specs, expect or [])
        for name in only or []:
            _check.require_known(name)
        terminal = Console(stderr=True)
        bar = Progress(
            TextColumn("{task.description}"),
            console=terminal,
            transient=True,
            disable=not terminal.is_terminal,
        )
        try:
            with bar, interrupts_between_calls() as raise_pending:
                shown = bar.add_task("")
                for spec in specs:
                    for one in iter_checks(spec, checks=only, slow=slow):
                        bar.update(shown, description=escape(repr(one)))
                        raise_pending()
                        results.append(one.run())
        except KeyboardInterrupt:
            interrupted = True
            print(
                f"optax-extras: interrupted after {len(results)} checks",
                file=sys.stderr,
            )
    if json:
        print(_check.to_json(results))
    else:
        console = Console()
        if all_of:
            console.print(*_check.overview(results))
        if verbose or not all_of:
            console.print(*_check.findings(results, verbose and not all_of))
        console.print(_check.summary(results))
    if interrupted:
        raise typer.Abort
    if _check.is_broken(results):
        raise typer.Exit(1)


@app.command("rules")
def show_rules(
    params: Annotated[
        str,
        typer.Argument(
            metavar="PARAMS",
            help="A tree of arrays or of jax.ShapeDtypeStruct at MODULE:ATTRIBUTE, or a"
            " function that returns one, which is traced and not run; perhaps with"
            " arguments, as in 'mine:init(layers=12)'.",
        ),
    ],
    rules: Annotated[
        str,
        typer.Argument(
            metavar="RULES",
            help="Rules, or a transformation that with_rules returns, at"
            " MODULE:ATTRIBUTE, or a function that returns one of the two.",
        ),
    ],
    require_all: Annotated[
        bool,
        typer.Option(
            "--require-all", help="Fail if there is a leaf that no pattern matches."
        ),
    ] = False,
    json: JSON = False,
) -> None:
    """Show which rule of with_rules is for which parameter."""
    with only_results_on_stdout():
        table = _rules.table_of(params, rules, require_all)
    if json:
        print(_rules.to_json(table))
    else:
        console = Console()
        console.print(*_rules.render(table, console.width))


@app.command("list")
def list_algorithms(json: JSON = False) -> None:
    """List every algorithm with its summary and papers."""
    entries = _catalogue.entries()
    if json:
        print(_catalogue.to_json(entries))
        return
    console = Console()
    for entry in entries:
        console.print(f"[bold]{entry.name}[/]")
        console.print(paragraph(entry.summary, 2))
        for paper in entry.references:
            console.print(paragraph(Text(paper.text, "dim"), 4))
