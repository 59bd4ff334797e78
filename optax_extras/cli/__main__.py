"""Makes `python -m optax_extras.cli` the command."""

from optax_extras.cli import main

main()
