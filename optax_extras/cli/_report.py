"""Report of a comparison: two CSV files and a picture, tables or JSON."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from optax_extras._core.writing import write_whole
from optax_extras.cli._text import Column, as_json, number, paragraph, tables
from optax_extras.tuning import Comparison, Summary


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes `summary.csv` and `trials.csv`; returns their paths."""
    rows = [_flat(summary) for summary in comparison.summaries()]
    contents = {
        "summary.csv": _csv(list(rows[0]), (row.values() for row in rows)),
        "trials.csv": _trials(comparison),
    }
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def draw(comparison: Comparison, folder: Path, name: str, caption: str) -> Path:
    """Draws a picture of that name; returns its path."""
    picture, path = io.BytesIO(), folder / f"{name}.png"
    comparison.plot(caption).savefig(picture, dpi=150)
    write_whole(path, picture.getbuffer())
    return path


def to_json(comparison: Comparison, caption: str) -> str:
    """Summaries as JSON, with null for numbers that are not finite."""
    sweep = next(iter(comparison.sweeps.values()))
    found = {
        "caption": caption,
        "task": sweep.task,
        **dataclasses.asdict(comparison.goal),
        "target": comparison.target,
        "steps": int(sweep.steps[-1]),
        "seeds": sweep.seeds.tolist(),
        "learning_rates": sweep.hyperparameters["learning_rate"].tolist(),
        "optimizers": [_fields(summary) for summary in comparison.summaries()],
    }
    return as_json(found)


def render(comparison: Comparison, caption: str, width: int) -> list[RenderableType]:
    """What each optimizer reached and what it cost, for a terminal of some width."""
    goal, summaries = comparison.goal, comparison.summaries()
    others = [name for name in summaries[0].metrics if name != goal.reported]
    headings = {"median": _words(goal.reported)}
    if _has_many_seeds(comparison):
        headings |= {k: f"{k} {_words(goal.reported)}" for k in ("lowest", "highest")}
    columns = [
        Column(
            "best rate",
            [number(s.best["learning_rate"]) + "*" * s.at_edge for s in summaries],
        ),
        *(
            Column(heading, [number(getattr(s, field), "diverged") for s in summaries])
            for field, heading in headings.items()
        ),
        Column(
            "steps to target", [number(s.steps_to_target, "never") for s in summaries]
        ),
        *(
            Column(_words(k), [number(s.metrics[k], "diverged") for s in summaries])
            for k in others
        ),
        Column(
            "diverged at all rates", [f"{s.diverged}/{s.trials}" for s in summaries]
        ),
        *_costs(summaries),
    ]
    names = [summary.optimizer for summary in summaries]
    return [
        paragraph(caption),
        *tables("optimizer", names, columns, width),
        paragraph(_note(comparison)),
    ]


def _costs(summaries: Sequence[Summary]) -> list[Column]:
    """Bytes that workers move, or bytes of state."""
    fields = {"sent_bytes": "MB sent", "received_bytes": "MB received"}
    scale = 1e-6
    if not summaries[0].sent_bytes:
        fields, scale = {"state_bytes_per_parameter": "state B per param"}, 1.0
    return [
        Column(heading, [number(scale * getattr(s, field)) for s in summaries])
        for field, heading in fields.items()
    ]


def _note(comparison: Comparison) -> str:
    goal = comparison.goal
    notes = ["Medians of seeds."] if _has_many_seeds(comparison) else []
    notes += [
        f"Rates chosen by {_words(goal.metric)}.",
        f"Target: {_words(goal.reported)} {'≤' if goal.mode == 'min' else '≥'}"
        f" {number(comparison.target)}, 95 % of the way from the start to the best of"
        " these optimizers.",
        "Steps to target: those after which a seed stays there to the end, the median"
        " of seeds.",
    ]
    if comparison.summaries()[0].sent_bytes:
        notes.append("MB: of each worker, in all steps.")
    if any(summary.at_edge for summary in comparison.summaries()):
        notes.append("*: best at an end of the grid; try a wider one.")
    return " ".join(notes)


def _has_many_seeds(comparison: Comparison) -> bool:
    return any(len(sweep.seeds) > 1 for sweep in comparison.sweeps.values())


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _flat(summary: Summary) -> dict[str, Any]:
    """Summary with its dictionaries merged in."""
    row = _fields(summary)
    best, metrics = row.pop("best"), row.pop("metrics")
    return {"optimizer": row.pop("optimizer"), **best, **row, **metrics}


def _fields(summary: Summary) -> dict[str, Any]:
    """The fields of a summary, without those that only workers have."""
    fields = summary._asdict()
    if not summary.sent_bytes:
        del fields["sent_bytes"], fields["received_bytes"]
    return fields


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
