"""Leaves as matrices."""

import math


def matrix_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of a kernel as a matrix: its last axis is that of the outputs."""
    return math.prod(shape[:-1]), shape[-1] if shape else 1
