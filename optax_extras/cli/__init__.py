"""The `optax-extras` command."""

import sys


def main() -> None:
    """Runs the command: exit code 2 and one line for usage errors, 130 for Ctrl-C."""
    try:
        from typer import Abort
        from typer.exceptions import TyperException

        from optax_extras.cli._app import app
    except ImportError as error:
        sys.exit(f"optax-extras: {error}; pip install 'optax-extras[cli]'")
    try:
        sys.exit(app(standalone_mode=False))
    except (Abort, KeyboardInterrupt):
        sys.exit(130)
    except TyperException as error:
        message = error.format_message().replace("Value error, ", "")
        if message:  # empty if the help was shown for want of arguments
            print(f"optax-extras: {message}", file=sys.stderr)
        sys.exit(error.exit_code)
