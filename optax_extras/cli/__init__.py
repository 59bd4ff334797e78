"""The `optax-extras` command."""

import sys


def main() -> None:
    """Runs the command; a usage error is one line and exit code 2."""
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
        if message:  # there is none where no arguments show the help
            print(f"optax-extras: {message}", file=sys.stderr)
        sys.exit(error.exit_code)
