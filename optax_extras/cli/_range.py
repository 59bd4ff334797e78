"""What `optax-extras lr-range` prints."""

from typing import Any

import numpy as np
from rich.console import RenderableType

from optax_extras.cli._text import Column, as_json, number, paragraph, tables
from optax_extras.tuning import LRRangeResult, Suggestion

# Names of the suggestions, from the lowest to the highest.
NAMES = {
    "steepest": "steepest descent",
    "between": "between the two",
    "tenth_of_divergence": "a tenth of divergence",
}
ADVICE = (
    "Try the rate between the two first. The best constant rate is usually above the"
    " steepest descent and below a tenth of divergence: sweep over that range to find"
    " it."
)


def to_json(result: LRRangeResult, optimizer: str) -> str:
    """The suggestions as JSON, with null for none."""
    found: dict[str, Any] = {
        "task": result.task,
        "optimizer": optimizer,
        "steps": len(result.learning_rates),
        "seeds": result.seeds.tolist(),
        "suggestions": {
            name: {**suggestion._asdict(), "rates": suggestion.rates.tolist()}
            for name, suggestion in _suggestions(result).items()
        },
    }
    return as_json(found)


def render(result: LRRangeResult, caption: str, width: int) -> list[RenderableType]:
    """The suggestions, for a terminal of some width."""
    found = _suggestions(result)
    columns = [
        Column(name, [number(getattr(s, name)) for s in found.values()])
        for name in ("median", "lowest", "highest")
    ]
    counts = [str(np.isfinite(s.rates).sum()) for s in found.values()]
    columns.append(Column("seeds", counts))
    return [
        paragraph(caption),
        *tables("suggestion", list(NAMES.values()), columns, width),
        paragraph(ADVICE),
    ]


def _suggestions(result: LRRangeResult) -> dict[str, Suggestion]:
    return {name: getattr(result, name) for name in NAMES}
