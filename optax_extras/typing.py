"""Types for the signatures of public functions."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

__all__ = [
    "AxisName",
    "DTypeLike",
    "KeyLike",
    "Loss",
    "Scalar",
    "ScalarOrSchedule",
    "Schedule",
]

Scalar = float | np.integer | np.floating | np.ndarray | jax.Array
"""A real number: a Python or NumPy number, or a 0-d array, which may be traced."""

Schedule = Callable[[jax.typing.ArrayLike], jax.typing.ArrayLike]
"""A function from the number of updates so far, int32[], to a real number."""

ScalarOrSchedule = Scalar | Schedule
"""A real number, or a schedule."""

KeyLike = int | np.integer | np.ndarray | jax.Array
"""A seed, a key from `jax.random.key`, or the uint32 words of one."""

AxisName = Hashable | tuple[Hashable, ...]
"""The name of a mapped axis, or a tuple of such names."""

Loss = Callable[..., Any]
"""A function of parameters and more to a scalar, perhaps with something else beside."""

DTypeLike = npt.DTypeLike
"""Anything that `numpy.dtype` accepts."""
