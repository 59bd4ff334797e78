"""Transformations that others are around."""

from __future__ import annotations

from typing import Any

import optax


def as_transformation(name: str, inner: Any) -> optax.GradientTransformationExtraArgs:
    """Checks an argument that is a transformation, which may be `optax.MultiSteps`."""
    if not all(callable(getattr(inner, part, None)) for part in ("init", "update")):
        raise TypeError(
            f"`{name}` must be a gradient transformation, such as optax.adam(0.1), got"
            f" {inner!r}"
        )
    if isinstance(inner, optax.MultiSteps):  # which optax does not take for one
        return optax.GradientTransformationExtraArgs(inner.init, inner.update)
    return optax.with_extra_args_support(inner)
