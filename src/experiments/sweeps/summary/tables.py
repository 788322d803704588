"""Show runs as tables: ranked, and mean and deviation over seeds."""

import json
import math
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.installation import command
from experiments.sweeps.summary.runs import ORDER, RESULTS, Run, objective, runs_in, split


def ranked(runs: Iterable[Run], metric: str, minimize: bool) -> list[Run]:
    """The runs, best first: finished ones, then the others by how far they came."""

    def place(run: Run) -> tuple[int, bool, float, str]:
        value = run.summary.get(metric)
        score = float(value) if isinstance(value, (int, float)) else math.nan
        missing = math.isnan(score)
        kind = ORDER.index(run.status) if run.status in ORDER else len(ORDER)
        return kind, missing, 0.0 if missing else score if minimize else -score, run.name

    return sorted(runs, key=place)


def rows(runs: Sequence[Run], metric: str) -> list[dict[str, Any]]:
    """The table's rows: results that there are, then what varied."""
    columns = dict.fromkeys((metric, *RESULTS))
    kept = [name for name in columns if any(run.summary.get(name) is not None for run in runs)]
    return [
        {"run": run.name, "status": run.status} | {name: run.summary.get(name) for name in kept} | run.varied
        for run in runs
    ]


def over_seeds(runs: Sequence[Run], metric: str, minimize: bool) -> list[dict[str, Any]]:
    """Mean and standard deviation of finished runs that differ in nothing but the seed; empty without such runs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.status == "finished" and "seed" in run.varied:
            rest = {key: value for key, value in run.varied.items() if key != "seed"}
            group = groups.setdefault(json.dumps(rest, sort_keys=True, default=str), [])
            if all(other.varied["seed"] != run.varied["seed"] for other in group):  # a repetition says nothing new
                group.append(run)
    if all(len(group) < 2 for group in groups.values()):
        return []
    table = []
    for group in groups.values():
        row: dict[str, Any] = {"seeds": len(group)}
        for name in dict.fromkeys((metric, "val/accuracy", "test/accuracy", "train_seconds")):
            values = [run.summary[name] for run in group if isinstance(run.summary.get(name), (int, float))]
            if values:
                row[name] = statistics.fmean(values)
                row[f"{name} ±"] = statistics.stdev(values) if len(values) > 1 else math.nan
        table.append(row | {key: value for key, value in group[0].varied.items() if key != "seed"})
    return sorted(table, key=lambda row: row.get(metric, math.inf) * (1 if minimize else -1))


def text(table: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """Rows as aligned columns, or as a Markdown table."""
    if not table:
        return ""
    every = dict.fromkeys(name for row in table for name in row)
    names = [name for name in every if not name.endswith(" ±")]

    def cell(row: Mapping[str, Any], name: str) -> str:
        deviation = f" ± {shown(row.get(f'{name} ±'))}" if f"{name} ±" in every else ""
        return shown(row.get(name)) + deviation

    cells = [names, *([cell(row, name) for name in names] for row in table)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    if markdown:
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
        lines.insert(1, "|" + "---|" * len(names))
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A value in a table."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def repeat(run: Run) -> str:
    """The command that makes a run again, and tests it."""
    kept = (item for item in run.overrides if item != "test=false" and split(item)[0] != "resume")
    return f"{command('train')} {shlex.join(kept)}"


def table_of(folder: str | Path) -> str:
    """The table of a folder, ranked by what its runs monitor, and the one over seeds where there are several."""
    runs = runs_in(folder)
    metric, minimize = objective(runs)
    runs = ranked(runs, metric, minimize)
    tables = [text(rows(runs, metric)), text(over_seeds(runs, metric, minimize))]
    return "\n\n".join(table for table in tables if table)
