"""How long a comparison will take, said once, early in its first sweep."""

import sys
import time
from collections.abc import Callable

from optax_extras._core.wording import counted

WORTH_SAYING = 60.0  # seconds
OnProgress = Callable[[int, int], object]


def with_estimate(
    on_progress: OnProgress,
    optimizers: int,
    clock: Callable[[], float] = time.monotonic,
) -> OnProgress:
    """Reports of the first sweep, with a line on standard error if all take long.

    The first report comes after compilation, which is counted once an optimizer. The
    time to the second one is that of the steps between them.

    Args:
      on_progress: called with the updates done and their total.
      optimizers: number of sweeps.
      clock: time in seconds.
    """
    started = clock()
    reports: list[tuple[float, int]] = []

    def report(done: int, total: int) -> None:
        on_progress(done, total)
        reports.append((clock(), done))
        if len(reports) != 2:
            return
        (first, before), (now, _) = reports
        sweep = first - started + (total - before) * (now - first) / (done - before)
        if sweep * optimizers > WORTH_SAYING:
            print(
                f"optax-extras: about {_duration(sweep * optimizers)} for"
                f" {counted(optimizers, 'sweep')}; fewer of them, --steps, --seeds or"
                " --budget make it shorter",
                file=sys.stderr,
            )

    return report


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"
