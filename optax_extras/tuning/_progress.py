"""Progress bar of a sweep."""

import contextlib
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(description: str = "") -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar with updates per second and the time remaining.

    The bar is drawn on standard error if that is a terminal, and removed at the end.

    Args:
      description: text before the bar.

    Yields:
      The ``on_progress`` argument of `sweep`.

    Raises:
      ImportError: rich is not installed.

    Examples:
      >>> import optax
      >>> from optax_extras.tuning import progress_bar, quadratic, sweep
      >>> with progress_bar("quadratic") as on_progress:
      ...     result = sweep(
      ...         quadratic(),
      ...         optax.sgd,
      ...         {"learning_rate": [0.5, 1.0]},
      ...         steps=100,
      ...         on_progress=on_progress,
      ...     )
      >>> result.best()
      {'learning_rate': 1.0}
    """
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError as error:
        raise ImportError(
            "`progress_bar` needs rich: pip install 'optax-extras[cli]'"
        ) from error
    columns = (
        TextColumn("{task.description:>20}"),
        BarColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(
        *columns, console=console, transient=True, disable=hidden
    ) as progress:
        shown = progress.add_task(description, total=None, speed="compiling")
        first: list[tuple[float, int]] = []

        def on_progress(done: int, total: int) -> None:
            speed, now = "", time.perf_counter()
            if first:
                # The first report starts the clock, which excludes compilation.
                ((then, before),) = first
                speed = f"{(done - before) / (now - then):,.0f} steps/s"
            else:
                first.append((now, done))
            progress.update(shown, completed=done, total=total, speed=speed)

        yield on_progress
