"""Summarize many runs: tables, a study's importances, files. Needs no torch."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config.installation import install_command
from experiments.errors import UserError
from experiments.runs.files import write_csv

if TYPE_CHECKING:
    from optuna import Study
from experiments.sweeps.summary.latex import latex
from experiments.sweeps.summary.repetitions import averages, compare
from experiments.sweeps.summary.runs import Run, objective, runs_in
from experiments.sweeps.summary.select import require_known, select, sort_runs
from experiments.sweeps.summary.tables import ranked, repeat, rows, text


def study_in(folder: str | Path) -> "Study | None":
    """The study of a sweep's directory; None if there is none, or Optuna is not installed.

    Raises:
        UserError: if its journal cannot be read.
    """
    from experiments.config.requirements import unfit_optuna

    journal = Path(folder).absolute() / "study.journal"
    if not journal.is_file() or unfit_optuna():
        return None
    import optuna

    from experiments.sweeps.storage import journal_storage
    from experiments.sweeps.study import STUDY_NAME

    try:
        return optuna.load_study(study_name=STUDY_NAME, storage=journal_storage(journal, os.getpid()))
    except Exception as error:  # whatever a damaged journal makes Optuna stumble over
        raise UserError(f"the study in {journal} cannot be read: {str(error).splitlines()[0]}") from error


def join(runs: Sequence[Run], study: "Study", folder: str | Path) -> None:
    """Give runs what the study knows of them: the value of trials whose summary has none, and what was lost."""
    from experiments.sweeps.trials import DIRECTORY_ATTR, LOST_ATTR, SWEEP_ATTR

    metric = study.user_attrs.get(SWEEP_ATTR, {}).get("hydra.sweeper.metric", "val/accuracy")
    by_directory = {os.path.abspath(Path(folder) / run.name): run for run in runs}
    better = min if study.direction.name == "MINIMIZE" else max
    for trial in study.get_trials(deepcopy=False):
        run = by_directory.get(str(trial.user_attrs.get(DIRECTORY_ATTR))) or by_directory.get(
            os.path.abspath(Path(folder) / str(trial.number))  # the folder was moved
        )
        if run is None:
            continue
        run.varied |= {name: run.varied.get(name, value) for name, value in trial.params.items()}
        if trial.intermediate_values:
            run.summary[metric] = better(trial.intermediate_values.values())
        if LOST_ATTR in trial.user_attrs:
            run.status = "interrupted"


def counts(study: "Study") -> str:
    """How many trials there are of each kind."""
    from experiments.sweeps.trials import STATUS, counted

    states = [STATUS[trial.state] for trial in counted(study)]
    listed = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(STATUS.values()) if name in states)
    return f"the study's {len(states)} trials: {listed or 'none'}"


def importance(study: "Study") -> dict[str, float]:
    """How much of the difference between finished trials each parameter explains; empty where that cannot be told."""
    import optuna

    try:
        return dict(optuna.importance.get_param_importances(study))
    except (ValueError, RuntimeError, ZeroDivisionError):  # too few trials, or all alike
        return {}


def summarize(
    folder: str | Path,
    metrics: Sequence[str] = (),
    output: str | Path | None = None,
    where: Sequence[str] = (),
    columns: Sequence[str] = (),
    sort: str | None = None,
    compared: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> list[Run]:
    """Show a folder of runs; with ``output``, write ``summary.csv``, ``.md`` and ``.tex``, and pictures there.

    Args:
        folder: holds run directories, at any depth.
        metrics: results to show, and the first to rank by; the sweep's own, or what runs monitor. The smallest
            ``*loss*`` is the best.
        where: conditions that runs must meet, as ``select`` takes them.
        columns: what to show of each run instead of results and what varied.
        sort: a key to order runs by, instead of the metric; ``-key`` turns it round.
        compared: two conditions, to compare the runs that meet the one with those that meet the other.

    Raises:
        UserError: if there is nothing to show, or it names what no run has.
    """
    runs, study, own = runs_in(folder), study_in(folder), None
    if study is not None:
        join(runs, study, folder)
        own = study.user_attrs.get("sweep", {}).get("hydra.sweeper.metric")
    every, runs = len(runs), select(runs, where)
    monitored, minimize = objective(runs)
    metrics = list(metrics) or [own or monitored]
    if study is not None and metrics[0] == own:
        minimize = study.direction.name == "MINIMIZE"
    elif metrics[0] != monitored:
        minimize = "loss" in metrics[0]
    runs = ranked(runs, metrics[0], minimize)
    for metric in metrics:
        if not any(metric in run.summary for run in runs) and any(run.status == "finished" for run in runs):
            known = sorted({name for run in runs for name in run.summary if "/" in name})
            raise UserError(f"metric={metric} is in no run's summary; there are {', '.join(known)}")
    for name in columns:
        require_known(runs, name, f"columns={name}")
    shown = sort_runs(runs, sort) if sort else runs
    table, repeated = rows(shown, metrics, columns), averages(runs, metrics, minimize)
    parts = [text(table), text(repeated)]
    if where:
        parts.append(f"{len(runs)} of {every} runs")
    if compared:
        parts += [compare(runs, compared, metric) for metric in metrics]
    if study is not None and not where:
        weights = importance(study)
        parts += [counts(study), text([{"parameter": name, "importance": value} for name, value in weights.items()])]
    if runs[0].status == "finished":
        parts.append(f"the best again, with test: {repeat(runs[0])}")
    for part in filter(None, parts):
        say(part + "\n")
    if output is not None:
        write(Path(output), table, repeated, latex(repeated or rows(runs, metrics), metrics), say)
        from experiments.sweeps.summary.pictures import are_installed, save_plots

        finished = [run for run in runs if run.status == "finished"]
        if not any(isinstance(run.summary.get(metrics[0]), (int, float)) for run in finished):
            say("no pictures: no run has finished")
        elif are_installed("matplotlib", "optuna"):
            say(f"pictures: {', '.join(map(str, save_plots(runs, metrics[0], minimize, Path(output))))}")
        else:
            say(f"no pictures: they need Optuna and matplotlib ({install_command('sweep')})")
    return runs


def write(
    folder: Path,
    table: Sequence[Mapping[str, Any]],
    repeated: Sequence[Mapping[str, Any]],
    paper: str,
    say: Callable[[str], None],
) -> None:
    """Write ``summary.csv``, ``summary.md`` and ``summary.tex``."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in table for name in row))
    write_csv(folder / "summary.csv", [names, *([row.get(name) for name in names] for row in table)])
    tables = [text(part, markdown=True) for part in (table, repeated) if part]
    (folder / "summary.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    (folder / "summary.tex").write_text(paper, encoding="utf-8")
    say(f"tables: {', '.join(str(folder / f'summary.{kind}') for kind in ('csv', 'md', 'tex'))}")
