"""Clipping by the history of gradient norms."""

__all__: list[str] = []
