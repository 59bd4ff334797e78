"""Wording of messages, captions and titles."""


def counted(number: int, noun: str) -> str:
    """A number of things, such as ``1 seed`` or ``2 seeds``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
