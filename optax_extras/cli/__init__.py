"""The `optax-extras` command."""

import io
import os
import sys
from typing import Any


def main() -> None:
    """Runs the command: exit code 2 and one line for errors, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    if "" not in sys.path:  # for what users' modules import late
        sys.path.append("")
    try:
        sys.exit(_run(_load()))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Nobody reads the output; the interpreter would flush it again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)


def _load() -> Any:
    try:
        from optax_extras.cli._app import app
    except ImportError as error:
        sys.exit(f"optax-extras: {error}; pip install 'optax-extras[cli]'")
    return app


def _run(app: Any) -> int | None:
    """The exit code."""
    from typer import Abort
    from typer.exceptions import TyperException

    from optax_extras._core.importing import cause

    try:
        code: int | None = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except Abort:
        return 130
    except TyperException as error:
        # The message is empty if the help was shown for want of arguments.
        if message := error.format_message().removeprefix("Invalid value: "):
            _say(message)
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("OPTAX_EXTRAS_TRACEBACK"):
            raise
        _say(cause(error))
        return 2
    return code


def _say(message: str) -> None:
    print("optax-extras:", message.replace("\n", " "), file=sys.stderr)
