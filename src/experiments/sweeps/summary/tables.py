"""Show runs as tables."""

import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.installation import OWN_CONF, command
from experiments.runs.run_directory import on_test, read_environment
from experiments.sweeps.summary.repetitions import averages
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


def rows(runs: Sequence[Run], metrics: Sequence[str], columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The table's rows: results that there are, then what varied; or the columns that were chosen."""
    if columns:
        return [{"run": run.name} | {name: run.value(name) for name in columns} for run in runs]
    results = dict.fromkeys((*metrics, *map(on_test, metrics), *RESULTS))
    kept = [name for name in results if any(run.summary.get(name) is not None for run in runs)]
    return [
        {"run": run.name, "status": run.status} | {name: run.summary.get(name) for name in kept} | run.varied
        for run in runs
    ]


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
    words = read_environment(run.directory).get("command")
    typed = words if isinstance(words, list) and not os.environ.get(OWN_CONF) else []
    own_conf = [word for word in map(str, typed) if word.startswith("--config-dir=")]
    return f"{command('train')} {shlex.join([*own_conf, *kept])}"


def table_of(folder: str | Path) -> str:
    """The table of a folder, ranked by what its runs monitor, and the one of averages where runs were repeated."""
    runs = runs_in(folder)
    metric, minimize = objective(runs)
    runs = ranked(runs, metric, minimize)
    tables = [text(rows(runs, [metric])), text(averages(runs, [metric], minimize))]
    return "\n\n".join(table for table in tables if table)
