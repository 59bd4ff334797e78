"""Parts of which the rows of the table of parity are made."""

from functools import partial
from typing import Any

import parity_numpy as paper
from parity_steps import ours
from parity_torch import stepped

RATE, DECAY = 0.05, 0.1


def falling(t: Any) -> Any:
    """A learning rate that falls."""
    return 0.1 / (1 + 0.05 * t)


def rising(t: Any) -> Any:
    """A decay that grows."""
    return 0.99 - 0.5 / (1 + 0.2 * t)


def plain(method: Any, *arguments: Any, **options: Any) -> Any:
    """The path of a transformation with these arguments."""
    return lambda: ours(method(*arguments, **options))


def rate_of(direction: Any, rate: Any = RATE, decay: float = 0.0) -> Any:
    """Steps along the directions that a function returns."""
    return lambda: paper.descent(direction(), rate, decay)


def each(leaf: Any, **options: Any) -> Any:
    """A function that returns the directions of all leaves."""
    return partial(paper.each, leaf, **options)


def whole(leaf: Any, **options: Any) -> Any:
    """The same of all leaves as one."""
    return partial(paper.whole, leaf, **options)


def torch(name: str, **options: Any) -> dict[str, Any]:
    """The part of a row that has an optimizer of PyTorch as its reference."""
    package = name.partition(":")[0].partition(".")[0]
    return {
        "theirs": partial(stepped, name, **options),
        "needs": tuple(dict.fromkeys(("torch", package))),
    }
