"""Average runs that differ in seed or fold alone, and compare two settings over those that they share."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.errors import UserError
from experiments.runs.run_directory import on_test
from experiments.sweeps.summary.runs import Run
from experiments.sweeps.summary.select import select

REPEATED = {"seed": "seeds", "data.fold": "folds"}
Repetition = tuple[Any, ...]  # the values of a run's seed and fold


def averages(runs: Sequence[Run], metrics: Sequence[str], minimize: bool) -> list[dict[str, Any]]:
    """Mean and sample standard deviation of finished runs that differ in seed or fold alone, the best first.

    Where both vary, the folds of a seed are averaged first, and the deviation is that over seeds. Empty where nothing
    was repeated.
    """
    groups: dict[str, dict[Repetition, Run]] = {}
    for run in runs:
        if run.status == "finished" and run.varied.keys() & REPEATED.keys():
            setting = {key: value for key, value in run.varied.items() if key not in REPEATED}
            group = groups.setdefault(json.dumps(setting, sort_keys=True, default=str), {})
            group.setdefault(_repetition(run), run)  # the same once more says nothing new
    if all(len(group) < 2 for group in groups.values()):
        return []
    table = []
    for group in groups.values():
        some = next(iter(group.values()))
        row: dict[str, Any] = {}
        for place, (key, name) in enumerate(REPEATED.items()):
            if key in some.varied:
                row[name] = len({repetition[place] for repetition in group})
        results = (*metrics, *map(on_test, metrics), "val/accuracy", "test/accuracy", "train_seconds")
        for metric in dict.fromkeys(results):
            values = {key: run.summary[metric] for key, run in group.items() if _is_number(run.summary.get(metric))}
            if values:
                independent = _over_folds(values)
                row[metric] = statistics.fmean(independent)
                row[f"{metric} ±"] = statistics.stdev(independent) if len(independent) > 1 else math.nan
        table.append(row | {key: value for key, value in some.varied.items() if key not in REPEATED})
    return sorted(table, key=lambda row: row.get(metrics[0], math.inf) * (1 if minimize else -1))


def compare(runs: Sequence[Run], settings: Sequence[str], metric: str) -> str:
    """Return how two settings differ over the seeds or folds that they share, in a sentence.

    The mean of the paired differences has a 95 % interval of Student's t, from three pairs on.

    Raises:
        UserError: unless there are two settings that share a seed or fold, each with one run of it.
    """
    if len(settings) != 2:
        raise UserError('compare= takes two conditions, such as compare="[optimizer=adam,optimizer=sgd]"')
    first, second = (_by_repetition(runs, setting, metric) for setting in settings)
    differences = {key: first[key] - second[key] for key in first if key in second}
    if not differences:
        raise UserError(f"compare=[{','.join(settings)}]: they have no seed or fold in common that both finished")
    independent = _over_folds(differences)
    mean, count = statistics.fmean(independent), len(independent)
    interval = "no interval below 3 pairs"
    if count >= 3:
        from scipy.stats import t as student

        half = float(student.ppf(0.975, count - 1)) * statistics.stdev(independent) / math.sqrt(count)
        interval = f"95 % interval {mean - half:+.4g} to {mean + half:+.4g}"
    return f"{metric} of {settings[0]} minus {settings[1]}: {mean:+.4g} ({interval}, n = {count} pairs)"


def _by_repetition(runs: Sequence[Run], setting: str, metric: str) -> dict[Repetition, float]:
    found: dict[Repetition, float] = {}
    for run in select(runs, [setting]):
        if run.status == "finished" and _is_number(run.summary.get(metric)):
            if _repetition(run) in found:
                others = ", ".join(key for key in run.varied if key not in REPEATED)
                raise UserError(
                    f"compare: {setting} has several runs of one seed and fold; choose by where= what else varies: "
                    f"{others or 'nothing, so one is a repetition'}"
                )
            found[_repetition(run)] = run.summary[metric]
    return found


def _repetition(run: Run) -> Repetition:
    return tuple(run.value(key) for key in REPEATED)


def _over_folds(values: Mapping[Repetition, float]) -> list[float]:
    """The values; the mean of its folds for each seed where there are several of both."""
    if any(len({repetition[place] for repetition in values}) < 2 for place in range(len(REPEATED))):
        return list(values.values())
    return [
        statistics.fmean(value for repetition, value in values.items() if repetition[0] == seed)
        for seed in dict.fromkeys(repetition[0] for repetition in values)
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
