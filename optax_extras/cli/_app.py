"""The commands and their options."""

import math
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table

from optax_extras._core.interrupts import interrupts_between_calls
from optax_extras.cli import _catalogue, _check, _compare, _report
from optax_extras.cli._optimizers import OPTIMIZERS, load_factory
from optax_extras.tasks import TASKS, load_task
from optax_extras.testing import CAPABILITIES, BoundCheck, aliases_of
from optax_extras.tuning import Comparison, SweepResult, lr_range_test

OUT = Annotated[Path, typer.Option(help="Folder for the results.")]
TASK_HELP = f"Your own Task, or one of {', '.join(TASKS)}."

app = typer.Typer(
    help="Compare, tune, check and list optimizers for JAX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _positive(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value} is not a finite number > 0.")
    return value


def _make_folder(path: Path) -> None:
    """Makes the folder for the results, before training that would be in vain."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise typer.BadParameter(
            f"cannot write to {path}: {error.strerror}.", param_hint="'--out'"
        ) from error


@app.command()
def compare(
    task: Annotated[
        str, typer.Option(metavar="NAME|MODULE:ATTRIBUTE", help=TASK_HELP)
    ] = "digits",
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|MODULE:FACTORY",
            help=f"A function of `learning_rate`, or one of {', '.join(OPTIMIZERS)};"
            " repeatable. By default all of these.",
        ),
    ] = None,
    budget: Annotated[
        int, typer.Option(min=1, help="Number of learning rates for each optimizer.")
    ] = 11,
    min_lr: Annotated[
        float, typer.Option(callback=_positive, help="Lowest learning rate.")
    ] = 1e-4,
    max_lr: Annotated[
        float, typer.Option(callback=_positive, help="Highest learning rate.")
    ] = 10.0,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of runs with each learning rate.")
    ] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Updates of each run.")] = 300,
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|full",
            help="Examples per mini-batch, or full for all of them.",
        ),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(callback=_positive, help="Clip gradients to this global norm."),
    ] = None,
    out: OUT = Path("optax-extras-out"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a task with each optimizer, over the same learning rates and seeds."""
    try:
        plan = _compare.Plan(
            task=_compare.task_of(task, batch_size),
            optimizers={name: load_factory(name) for name in optimizer or OPTIMIZERS},
            learning_rates=_compare.grid(min_lr, max_lr, budget),
            seeds=seeds,
            steps=steps,
            clip=clip,
        )
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error
    _make_folder(out)
    _compare.use_all_cores()
    sweeps: dict[str, SweepResult] = {}
    paths: list[Path] = []
    interrupted = False
    try:
        with interrupts_between_calls():
            for name in plan.optimizers:
                finished = {**sweeps, name: plan.run(name)}
                paths = _report.write(Comparison(finished), out, plan.caption)
                sweeps = finished
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error
    except KeyboardInterrupt:
        interrupted = True
        kept = ", ".join(sweeps) or "nothing"
        print(f"optax-extras: interrupted; finished: {kept}", file=sys.stderr)
    if sweeps and json:
        print(_report.to_json(Comparison(sweeps), plan.caption))
    elif sweeps:
        console = Console()
        console.print(*_report.tables(Comparison(sweeps), plan.caption))
        console.print("written:", *map(str, paths), soft_wrap=True)
    if interrupted:
        raise typer.Abort


@app.command("lr-range")
def lr_range(
    task: Annotated[
        str, typer.Option(metavar="NAME|MODULE:ATTRIBUTE", help=TASK_HELP)
    ] = "digits",
    optimizer: Annotated[
        str,
        typer.Option(
            metavar="NAME|MODULE:FACTORY",
            help="A function of `learning_rate`, or one of the names of `compare`.",
        ),
    ] = "sgd",
    min_lr: Annotated[float, typer.Option(help="First learning rate.")] = 1e-5,
    max_lr: Annotated[float, typer.Option(help="Last learning rate.")] = 100.0,
    steps: Annotated[int, typer.Option(help="Updates of each run.")] = 200,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs.")] = 5,
    smoothing: Annotated[
        float, typer.Option(help="Decay of the average of the losses.")
    ] = 0.9,
    out: OUT = Path("optax-extras-out"),
) -> None:
    """Suggest learning rates by training with one that grows at every step."""
    _make_folder(out)
    try:
        result = lr_range_test(
            load_task(task),
            load_factory(optimizer),
            min_lr=min_lr,
            max_lr=max_lr,
            steps=steps,
            seeds=seeds,
            smoothing=smoothing,
        )
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error
    table = Table(title=f"{optimizer} on {result.task}, {seeds} seeds")
    for heading in ("suggestion", "median", "lowest", "highest", "seeds"):
        table.add_column(heading)
    for name, suggestion in (
        ("steepest descent", result.steepest),
        ("a tenth of divergence", result.tenth_of_divergence),
    ):
        found = int(np.isfinite(suggestion.rates).sum())
        numbers = (f"{x:.3g}" if found else "none" for x in suggestion[1:])
        table.add_row(name, *numbers, str(found))
    path = out / "lr-range.png"
    result.plot().savefig(path, dpi=150)
    console = Console()
    console.print(table)
    console.print("written:", str(path), soft_wrap=True)


@app.command()
def check(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:FACTORY",
            help="A function that makes the transformation, or a Spec.",
        ),
    ] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An argument of the factory; repeatable. Numbers with a decimal point"
            " are taken for hyperparameters.",
        ),
    ] = None,
    supports: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLAG",
            help=f"A capability: {', '.join(CAPABILITIES)}; repeatable.",
        ),
    ] = None,
    all_of: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            help="Check every optimizer of a module, such as optax; repeatable.",
        ),
    ] = None,
    slow: Annotated[
        bool, typer.Option("--slow", help="Run the slow tier too.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show what passed, too.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that a gradient transformation keeps the contract of JAX and optax."""
    if (target is None) == (not all_of):
        raise typer.BadParameter("give MODULE:FACTORY or --all-of, one of the two.")
    jax.config.update("jax_num_cpu_devices", 8)  # type: ignore[no-untyped-call]
    try:
        if target is not None:
            specs = [_check.load(target, arg or [], supports or [])]
        elif arg or supports:
            raise ValueError("--arg and --supports go with MODULE:FACTORY")
        else:
            specs = [spec for module in all_of or [] for spec in aliases_of(module)]
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(f"{error}.") from error
    console = Console()
    progress = Progress(
        TextColumn("{task.description}"), console=Console(stderr=True), transient=True
    )
    with progress, interrupts_between_calls() as raise_pending:
        shown = progress.add_task("")

        def on_check(check: BoundCheck) -> None:
            progress.update(shown, description=repr(check))
            raise_pending()

        results = _check.run(specs, slow, on_check)
    if json:
        print(_check.to_json(results))
    else:
        if len(specs) > 1:
            console.print(_check.matrix(results))
        elif verbose or any(not result.ok for result in results):
            console.print(_check.table(results, verbose))
        console.print(_check.summary(results))
    if _check.is_broken(results):
        raise typer.Exit(1)


@app.command("list")
def list_algorithms() -> None:
    """List every algorithm with its summary and papers."""
    table = Table(show_lines=True)
    table.add_column("name", no_wrap=True)
    table.add_column("summary")
    table.add_column("paper")
    for entry in _catalogue.entries():
        papers = "\n".join(paper.text for paper in entry.references)
        table.add_row(entry.name, entry.summary, papers)
    Console().print(table)
