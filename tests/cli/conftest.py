"""The command, run in this process."""

import sys

import pytest

from optax_extras.cli import main


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command with arguments: exit code, output, errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["optax-extras", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            main()
        return exit_info.value.code or 0, *capsys.readouterr()

    return run
