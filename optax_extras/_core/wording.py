"""Wording of messages, captions, titles and tables."""

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """A number of things, such as ``1 seed`` or ``2 seeds``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def memory_size(count: float) -> str:
    """Bytes with three digits, such as ``12 B`` or ``1.5 GiB``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = 0
    while count >= 1023.5 and power < len(units) - 1:
        count, power = count / 1024, power + 1
    digits = ".3g" if count < 999.5 else ".0f"  # "g" would write 1000 as 1e+03
    return f"{count:{digits}} {units[power]}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A line for each row, in columns that start below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
