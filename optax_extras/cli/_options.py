"""Options that several commands have, and what they lead to."""

import contextlib
import importlib.metadata
import importlib.util
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import jax
import typer
from rich.console import Console

import optax_extras
from optax_extras.cli._optimizers import OPTIMIZERS
from optax_extras.tasks import TASKS

OUT = Annotated[Path, typer.Option(help="Folder for the results.")]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TARGET = "MODULE:ATTRIBUTE or one of {}; perhaps with arguments, as in {}"
TASK = Annotated[
    str,
    typer.Option(
        metavar="TASK",
        help="Your own Task at "
        + TARGET.format(", ".join(TASKS), "digits(hidden=16)")
        + ".",
    ),
]
SEEDS = Annotated[
    int, typer.Option(min=1, help="Number of runs with each learning rate.")
]
STEPS = Annotated[int, typer.Option(min=1, help="Updates of each run.")]
BATCH_SIZE = Annotated[
    str | None,
    typer.Option(
        metavar="N|full", help="Examples per mini-batch, or full for all of them."
    ),
]
BUDGET = Annotated[
    int, typer.Option(min=1, help="Number of learning rates for each optimizer.")
]
PARAMS = Annotated[
    str,
    typer.Argument(
        metavar="PARAMS",
        help="A tree of arrays or of jax.ShapeDtypeStruct at MODULE:ATTRIBUTE, or a"
        " function that returns one, which is traced and not run; perhaps with"
        " arguments, as in 'mine:init(layers=12)'.",
    ),
]
OPTIMIZER_HELP = "A function of `learning_rate` at " + TARGET.format(
    ", ".join(OPTIMIZERS), "adam(b1=0.8)"
)


def say_version(wanted: bool) -> None:
    if wanted:
        jax_version, optax_version = map(importlib.metadata.version, ("jax", "optax"))
        print(
            f"optax-extras {optax_extras.__version__}"
            f" (jax {jax_version}, optax {optax_version})"
        )
        raise typer.Exit


def positive(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value} is not a finite number > 0.")
    return value


MIN_LR = Annotated[float, typer.Option(callback=positive, help="Lowest learning rate.")]
MAX_LR = Annotated[
    float, typer.Option(callback=positive, help="Highest learning rate.")
]
CLIP = Annotated[
    float | None,
    typer.Option(callback=positive, help="Clip gradients to this global norm."),
]


def prepare_folder(path: Path) -> None:
    """Makes the folder for pictures, before training that would be in vain."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("pictures need matplotlib: pip install 'optax-extras[cli]'")
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise typer.BadParameter(
            f"cannot write to {path}: {error.strerror}.", param_hint="'--out'"
        ) from error


def say_written(console: Console, paths: Sequence[Path]) -> None:
    """Names the files, one a line, unbroken."""
    console.print("written:")
    for path in paths:
        console.print(f"  {path}", soft_wrap=True, markup=False, highlight=False)


@contextlib.contextmanager
def only_results_on_stdout() -> Iterator[None]:
    """Sends what users' modules print to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def use_devices(count: int | None) -> None:
    """Makes so many JAX devices of the CPU."""
    # JAX refuses if it is initialized already; its devices are then used as they are.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)
