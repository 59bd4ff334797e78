"""What `optax-extras lr-range` prints."""

from typing import Any

import numpy as np
from rich.console import RenderableType

from optax_extras.cli._text import Column, as_json, number, paragraph, tables
from optax_extras.tuning import LRRangeResult, Suggestion

ADVICE = (
    "Try a rate between the two first. The steepest descent is usually too low for a"
    " constant rate, and a tenth of divergence too high: a grid of rates between them"
    " usually holds the best."
)


def suggestions(result: LRRangeResult) -> dict[str, Suggestion]:
    """The suggestions by their names, from the lowest to the highest."""
    return {
        "steepest descent": result.steepest,
        "between the two": result.between,
        "a tenth of divergence": result.tenth_of_divergence,
    }


def to_json(result: LRRangeResult, optimizer: str) -> str:
    """The suggestions as JSON, with null for none."""
    found: dict[str, Any] = {
        "task": result.task,
        "optimizer": optimizer,
        "steps": len(result.learning_rates),
        "seeds": result.seeds.tolist(),
        "suggestions": {
            name: {**suggestion._asdict(), "rates": suggestion.rates.tolist()}
            for name, suggestion in suggestions(result).items()
        },
    }
    return as_json(found)


def render(result: LRRangeResult, caption: str, width: int) -> list[RenderableType]:
    """The suggestions, for a terminal of some width."""
    found = suggestions(result)
    columns = [
        Column(name, [number(getattr(s, name)) for s in found.values()])
        for name in ("median", "lowest", "highest")
    ]
    counts = [str(np.isfinite(s.rates).sum()) for s in found.values()]
    columns.append(Column("seeds", counts))
    return [
        paragraph(caption),
        *tables("suggested learning rate", list(found), columns, width),
        paragraph(ADVICE),
    ]
