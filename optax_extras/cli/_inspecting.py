"""The commands that train nothing, and their options."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn
from rich.text import Text

from optax_extras._core.interrupts import interrupts_between_calls
from optax_extras.cli import _catalogue, _check, _memory, _rules, _shardings
from optax_extras.cli._loading import parameters
from optax_extras.cli._optimizers import OPTIMIZERS
from optax_extras.cli._options import (
    JSON,
    PARAMS,
    TARGET,
    only_results_on_stdout,
    use_devices,
)
from optax_extras.cli._text import paragraph
from optax_extras.testing import CAPABILITIES, Result, aliases_of, iter_checks


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
        try:
            with _progress() as say, interrupts_between_calls() as raise_pending:
                for spec in specs:
                    for one in iter_checks(spec, checks=only, slow=slow):
                        say(repr(one))
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


def show_rules(
    params: PARAMS,
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


def show_memory(
    params: PARAMS,
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTIMIZER",
            help="A transformation, or a function that returns one, at "
            + TARGET.format(", ".join(_memory.KNOWN), "mine:opt(b1=0.8)")
            + f"; repeatable. It is shown beside {', '.join(_memory.BESIDE)}.",
        ),
    ] = None,
    mesh: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS=SIZE,...",
            help="Devices to plan for, such as data=8,model=4; they need not exist.",
        ),
    ] = None,
    shard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=AXES",
            help="Axes for the parameters whose whole path matches a regular"
            " expression, as in 'layers/.*/w=data,None'; + joins several. Repeatable:"
            " the first that matches counts. What none matches is replicated.",
        ),
    ] = None,
    json: JSON = False,
) -> None:
    """Show how many bytes optimizers need for parameters, and where these go."""
    if shard and mesh is None:
        raise typer.BadParameter("--shard goes with --mesh.")
    asked = list(dict.fromkeys(optimizer or ["adam"]))
    with only_results_on_stdout():
        sizes = {} if mesh is None else _shardings.mesh_sizes(mesh)
        if 1 < math.prod(sizes.values()) <= _memory.MOST_DEVICES:
            use_devices(math.prod(sizes.values()))
        names = dict.fromkeys([*asked, *_memory.BESIDE])
        optimizers = {name: _memory.load_optimizer(name) for name in names}
        tree = parameters(params)
        sharding = _shardings.shardings(tree, sizes, shard or []) if sizes else None
        found = _memory.Plans(tree, sharding, asked)
        with _progress() as say:
            for name, tx in optimizers.items():
                say(name)
                found.add(name, tx)
    if json:
        print(_memory.to_json(found))
    else:
        console = Console()
        console.print(*_memory.render(found, console.width))


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


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A function that shows on a terminal what is going on."""
    terminal = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,
    )
    with bar:
        shown = bar.add_task("")
        yield lambda text: bar.update(shown, description=escape(text))
