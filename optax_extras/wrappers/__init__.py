"""Transformations around any transformation."""

__all__: list[str] = []
