"""Many runs side by side: ranked, what varied between them, mean and deviation over seeds. Needs no torch.

Reads what runs leave: ``overrides.yaml``, ``config.yaml``, ``summary.json``, and the study of a sweep. Runs that are
under way, were interrupted or failed are listed too.
"""

import csv
import json
import math
import os
import shlex
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from experiments.composition import is_locked
from experiments.config.installation import command, install_command
from experiments.errors import UserError

if TYPE_CHECKING:
    from optuna import Study

ORDER = ("finished", "pruned", "running", "interrupted", "failed")
NOT_VARIED = ("test", "resume", "trust", "hydra", "run_dir", "sweep")
RESULTS = ("val/accuracy", "test/accuracy", "best_epoch", "epochs", "train_seconds")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Run:
    """One run as it can be read now."""

    name: str  # its directory, below the folder that is summarized
    status: str
    summary: dict[str, Any]
    overrides: list[str]
    config: dict[str, Any]
    choices: dict[str, Any]
    varied: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str) -> Any:
        """The value of a key or a group: what was typed, or else what held without."""
        if key in self.choices:
            return self.choices[key]
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None or isinstance(value, Mapping):  # a choice that nobody noted
            typed = dict(split(override) for override in self.overrides)
            return typed.get(key)
        return value


def split(override: str) -> tuple[str, str]:
    """Key and value of what was typed."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def read(path: Path, missing: Any) -> Any:
    """A YAML or JSON file; ``missing`` if it is not there, or is half of one."""
    try:
        text = path.read_text()
        return (json.loads(text) if path.suffix == ".json" else yaml.load(text, _LOADER)) or missing
    except (OSError, ValueError, yaml.YAMLError):
        return missing


def runs_in(folder: str | Path) -> list[Run]:
    """Every run below a folder, with what varied between them.

    Raises:
        UserError: if there is none.
    """
    folder = Path(folder)
    found = {path.parent for name in ("config.yaml", "summary.json") for path in folder.rglob(name)}
    directories = sorted(path for path in found if path.name != ".hydra")
    if not directories:
        raise UserError(f"there are no runs in {folder}: name a folder with run directories, such as runs=runs")
    runs = []
    for path in directories:
        summary = read(path / "summary.json", {})
        hydra = read(path / ".hydra" / "hydra.yaml", {}).get("hydra", {})
        runs.append(
            Run(
                name=os.path.relpath(path, folder),
                status=summary.get("status") or ("running" if is_locked(path) else "interrupted"),
                summary=summary,
                overrides=read(path / "overrides.yaml", read(path / ".hydra" / "overrides.yaml", [])),
                config=read(path / "config.yaml", {}),
                choices=hydra.get("runtime", {}).get("choices", {}),
            )
        )
    keys = dict.fromkeys(split(override)[0] for run in runs for override in run.overrides)
    for key in keys:
        values = [run.get(key) for run in runs]
        if key.partition(".")[0].partition("/")[0] not in NOT_VARIED and len({str(value) for value in values}) > 1:
            for run, value in zip(runs, values, strict=True):
                run.varied[key] = value
    return runs


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
    names = list(dict.fromkeys(name for row in table for name in row))
    cells = [names, *([shown(row.get(name)) for name in names] for row in table)]
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
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def repeat(run: Run) -> str:
    """The command that makes a run again, and tests it."""
    kept = (item for item in run.overrides if item != "test=false" and split(item)[0] != "resume")
    return f"{command('train')} {shlex.join(kept)}"


def table_of(folder: str | Path, metric: str = "val/accuracy") -> str:
    """The ranked table of a folder, and the one over seeds where there are several."""
    minimize = "loss" in metric
    runs = ranked(runs_in(folder), metric, minimize)
    tables = [text(rows(runs, metric)), text(over_seeds(runs, metric, minimize))]
    return "\n\n".join(table for table in tables if table)


def studies_in(folder: str | Path, storage: str | None) -> list["Study"]:
    """The studies of a sweep's directory, or of a storage that is named.

    Raises:
        UserError: if a named storage cannot be read.
    """
    journal = Path(folder) / "study.journal"
    if storage is None and not journal.is_file():
        return []
    from experiments.sweeps.needs import unfit_optuna

    if problem := unfit_optuna():
        if storage is None:
            return []
        raise UserError(problem)
    import optuna

    from experiments.sweeps.study import opened

    address = storage or str(journal.absolute())
    if "://" not in address and not Path(address).is_file():
        raise UserError(f"storage={address}: there is no such file")
    try:
        connection = opened(address, os.getpid())
        names = optuna.get_all_study_names(connection)
        return [optuna.load_study(study_name=name, storage=connection) for name in names]
    except Exception as error:  # whatever a database and its driver may say
        raise UserError(f"the storage {address} cannot be read: {str(error).splitlines()[0]}") from error


def join(runs: Sequence[Run], study: "Study", folder: str | Path) -> None:
    """Give runs what the study knows of them: the value of trials whose summary has none, and what was lost."""
    from experiments.sweeps.study import DIRECTORY, LOST, SWEEP

    metric = study.user_attrs.get(SWEEP, {}).get("hydra.sweeper.metric", "val/accuracy")
    by_directory = {os.path.abspath(Path(folder) / run.name): run for run in runs}
    better = min if study.direction.name == "MINIMIZE" else max
    for trial in study.get_trials(deepcopy=False):
        run = by_directory.get(str(trial.user_attrs.get(DIRECTORY))) or by_directory.get(
            os.path.abspath(Path(folder) / str(trial.number))  # the folder was moved
        )
        if run is None:
            continue
        run.varied |= {name: run.varied.get(name, value) for name, value in trial.params.items()}
        if trial.intermediate_values:
            run.summary[metric] = better(trial.intermediate_values.values())
        if LOST in trial.user_attrs:
            run.status = "interrupted"


def counts(study: "Study") -> str:
    """How many trials there are of each kind."""
    from experiments.sweeps.study import STATUS, counted

    states = [STATUS[trial.state] for trial in counted(study)]
    listed = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(STATUS.values()) if name in states)
    return (
        f"study {study.study_name}: {len(states)} trials, {listed}" if states else f"study {study.study_name}: empty"
    )


def importance(study: "Study") -> dict[str, float]:
    """How much of the difference between finished trials each parameter explains; empty where that cannot be told."""
    import optuna

    try:
        return dict(optuna.importance.get_param_importances(study))
    except (ValueError, RuntimeError, ZeroDivisionError):  # too few trials, or all alike
        return {}


def summarize(
    folder: str | Path,
    metric: str | None = None,
    output: str | Path | None = None,
    storage: str | None = None,
    say: Callable[[str], None] = print,
) -> list[Run]:
    """Show a folder of runs; with ``output``, write ``summary.csv``, ``summary.md`` and pictures there.

    Args:
        folder: holds run directories, at any depth.
        metric: what runs are ranked by; the sweep's own, or ``val/accuracy``. The smallest ``*loss*`` is the best.
        storage: where the study of a sweep is, if not in ``study.journal`` of the folder.

    Raises:
        UserError: if there is nothing to show.
    """
    runs, studies = runs_in(folder), studies_in(folder, storage)
    for study in studies:
        join(runs, study, folder)
    own = next((study.user_attrs.get("sweep", {}).get("hydra.sweeper.metric") for study in studies), None)
    metric = metric or own or "val/accuracy"
    minimize = studies[0].direction.name == "MINIMIZE" if own == metric else "loss" in metric
    runs = ranked(runs, metric, minimize)
    if not any(metric in run.summary for run in runs) and any(run.status == "finished" for run in runs):
        known = sorted({name for run in runs for name in run.summary if "/" in name})
        raise UserError(f"metric={metric} is in no run's summary; there are {', '.join(known)}")
    table, seeds = rows(runs, metric), over_seeds(runs, metric, minimize)
    weights = [(study, importance(study)) for study in studies]
    parts = [text(table), text(seeds)]
    for study, one in weights:
        parts += [counts(study), text([{"parameter": name, "importance": value} for name, value in one.items()])]
    if runs[0].status == "finished":
        parts.append(f"the best again, with test: {repeat(runs[0])}")
    for part in filter(None, parts):
        say(part + "\n")
    if output is not None:
        write(Path(output), table, seeds, say)
        from experiments.sweeps.drawing import can_draw, draw

        if can_draw():
            say(f"pictures: {', '.join(str(path) for path in draw(runs, weights, metric, minimize, Path(output)))}")
        else:
            say(f"no pictures: they need matplotlib ({install_command('plot')})")
    return runs


def write(
    folder: Path, table: Sequence[Mapping[str, Any]], seeds: Sequence[Mapping[str, Any]], say: Callable[[str], None]
) -> None:
    """``summary.csv`` and ``summary.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in table for name in row))
    with (folder / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(table)
    tables = [text(part, markdown=True) for part in (table, seeds) if part]
    (folder / "summary.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    say(f"tables: {folder / 'summary.csv'}, {folder / 'summary.md'}")
