"""Report of a comparison: two CSV files and a picture, tables or JSON."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from optax_extras.tuning import Comparison, Summary


def write(comparison: Comparison, folder: Path, caption: str) -> list[Path]:
    """Writes `summary.csv`, `trials.csv` and `compare.png`; returns their paths."""
    rows = [_flat(summary) for summary in comparison.summaries()]
    picture = io.BytesIO()
    comparison.plot(caption).savefig(picture, dpi=150)
    contents = {
        "summary.csv": _csv(list(rows[0]), (row.values() for row in rows)),
        "trials.csv": _trials(comparison),
        "compare.png": picture.getvalue(),
    }
    paths = []
    for name, content in contents.items():
        # Renaming is atomic: an interrupt here leaves the last complete file.
        unfinished = folder / f".{name}"
        unfinished.write_bytes(content)
        paths.append(unfinished.replace(folder / name))
    return paths


def to_json(comparison: Comparison, caption: str) -> str:
    """Summaries as JSON, with null for numbers that are not finite."""
    goal = comparison.goal
    sweep = next(iter(comparison.sweeps.values()))
    found = {
        "caption": caption,
        "task": sweep.task,
        **dataclasses.asdict(goal),
        "target": comparison.target,
        "steps": int(sweep.steps[-1]),
        "seeds": sweep.seeds.tolist(),
        "learning_rates": sweep.hyperparameters["learning_rate"].tolist(),
        "optimizers": [summary._asdict() for summary in comparison.summaries()],
    }
    return json.dumps(_without_infinities(found), indent=2)


def tables(comparison: Comparison, caption: str) -> list[Table]:
    """Tables of what each optimizer reached and what it cost, for a terminal."""
    metric, mode = comparison.goal.metric, comparison.goal.mode
    summaries = comparison.summaries()
    others = [name for name in summaries[0].metrics if name != metric]
    note = f"target: {metric} {'≤' if mode == 'min' else '≥'} {comparison.target:.3g}"
    if any(summary.at_edge for summary in summaries):
        note += "; *: best at an end of the grid, try a wider one"
    results = (f"{metric} (all seeds)", *others)
    reached = _table(caption, "best rate", *results, "steps to target")
    reached.caption = f"medians of seeds; {note}"
    cost = _table("", "diverged", "state B/param")
    for summary in summaries:
        ever = math.isfinite(summary.steps_to_target)
        reached.add_row(
            summary.optimizer,
            f"{summary.best['learning_rate']:.2g}{'*' if summary.at_edge else ''}",
            f"{_number(summary.median)} ({_number(summary.lowest)}–"
            f"{_number(summary.highest)})",
            *(f"{summary.metrics[name]:.3g}" for name in others),
            f"{summary.steps_to_target:.0f}" if ever else "never",
        )
        cost.add_row(
            summary.optimizer,
            f"{summary.diverged}/{summary.trials}",
            f"{summary.state_bytes_per_parameter:.1f}",
        )
    return [reached, cost]


def _table(title: str, *headings: str) -> Table:
    result = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    result.add_column("optimizer", no_wrap=True)
    for heading in headings:
        narrow = heading.replace("_", " ")
        result.add_column(narrow, justify="right", no_wrap="(" in narrow)
    return result


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "diverged"
    # A column holds three of these.
    tiny = 0 < abs(value) < 1e-3
    return f"{value:.1e}".replace("e-0", "e-") if tiny else f"{value:.2g}"


def _flat(summary: Summary) -> dict[str, Any]:
    """Summary with its dictionaries merged in."""
    row = summary._asdict()
    best, metrics = row.pop("best"), row.pop("metrics")
    return {"optimizer": row.pop("optimizer"), **best, **row, **metrics}


def _trials(comparison: Comparison) -> bytes:
    """CSV with a row for every evaluation of every trial."""
    tables = {name: sweep.columns() for name, sweep in comparison.sweeps.items()}
    heading = ["optimizer", *next(iter(tables.values()))]
    rows = (
        (name, *row)
        for name, columns in tables.items()
        for row in zip(*columns.values(), strict=True)
    )
    return _csv(heading, rows)


def _csv(heading: Sequence[str], rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue().encode()


def _without_infinities(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _without_infinities(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_without_infinities(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
