"""The command and the names of what it does."""

from typing import Annotated

import typer

from optax_extras.cli._inspecting import check, list_algorithms, show_memory, show_rules
from optax_extras.cli._options import say_version
from optax_extras.cli._training import communicate, compare, lr_range

app = typer.Typer(
    help="Compare, tune, check, plan and list optimizers for JAX.",
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


app.command()(compare)
app.command()(communicate)
app.command("lr-range")(lr_range)
app.command()(check)
app.command("rules")(show_rules)
app.command("memory")(show_memory)
app.command("list")(list_algorithms)
