"""Noise, momentum, AdaSmooth, compressed means and wrappers for optax.

The tools are imported at first use: `optax_extras.tasks`, `optax_extras.testing` and
`optax_extras.tuning`.
"""

import importlib
from typing import TYPE_CHECKING

from optax_extras import (
    adaptive,
    clipping,
    communication,
    compressors as compressors,
    memory,
    metrics as metrics,
    momentum,
    noise,
    schedules,
    wrappers,
)
from optax_extras.adaptive import *  # noqa: F403
from optax_extras.clipping import *  # noqa: F403
from optax_extras.communication import *  # noqa: F403
from optax_extras.memory import *  # noqa: F403
from optax_extras.momentum import *  # noqa: F403
from optax_extras.noise import *  # noqa: F403
from optax_extras.schedules import *  # noqa: F403
from optax_extras.wrappers import *  # noqa: F403

if TYPE_CHECKING:
    from types import ModuleType

    from optax_extras import tasks as tasks, testing as testing, tuning as tuning

__version__ = "0.1.0"

__all__ = [
    *noise.__all__,
    *momentum.__all__,
    *adaptive.__all__,
    *communication.__all__,
    *schedules.__all__,
    *clipping.__all__,
    *wrappers.__all__,
    *memory.__all__,
]

_TOOLS = ("tasks", "testing", "tuning")

if not TYPE_CHECKING:  # to a type checker, every name would be an attribute

    def __getattr__(name: str) -> "ModuleType":
        """Imports a tool at first use."""
        if name in _TOOLS:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_TOOLS})
