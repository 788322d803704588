"""Draw many runs: their history, each parameter's effect, how much it mattered."""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Study

    from experiments.sweeps.summary.runs import Run


COLOURS = {"finished": "tab:blue", "pruned": "tab:gray", "running": "tab:orange", "interrupted": "tab:olive"}
WIDE = 30.0  # values that span more than this ratio are shown on a log scale


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(
    runs: Sequence["Run"],
    weights: Sequence[tuple["Study", dict[str, float]]],
    metric: str,
    minimize: bool,
    folder: Path,
) -> list[Path]:
    """Write ``history.png``, ``slice.png`` and, for sweeps, ``importance.png``; those that show something."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [run for run in runs if isinstance(run.summary.get(metric), (int, float)) and run.status in COLOURS]
    pictures = {
        "history": _history(pyplot, shown, metric, minimize),
        "slice": _slice(pyplot, shown, metric),
        "importance": _importance(pyplot, weights, metric),
    }
    written = []
    for name, figure in pictures.items():
        if figure is not None:
            written.append(folder / f"{name}.png")
            figure.savefig(written[-1], dpi=120, bbox_inches="tight")
            pyplot.close(figure)
    return written


def _numbered(run: "Run") -> tuple[int, str]:
    return (int(run.name), "") if run.name.isdecimal() else (0, run.name)


def _history(pyplot: Any, runs: Sequence["Run"], metric: str, minimize: bool) -> Any:
    """Each run's value in the order in which they were started, and the best so far."""
    if len(runs) < 2:
        return None
    runs = sorted(runs, key=_numbered)
    figure, axes = pyplot.subplots(figsize=(7, 4))
    best, better, record = math.inf if minimize else -math.inf, min if minimize else max, []
    for run in runs:
        if run.status == "finished":
            best = better(best, run.summary[metric])
        record.append(best if math.isfinite(best) else math.nan)
    axes.step(range(len(runs)), record, where="post", color="tab:red", label="best so far")
    _dots(axes, list(range(len(runs))), runs, metric)
    axes.set_xlabel("run")
    axes.set_ylabel(metric)
    axes.legend()
    return figure


def _slice(pyplot: Any, runs: Sequence["Run"], metric: str) -> Any:
    """A panel a parameter: its value against the result."""
    names = list(dict.fromkeys(name for run in runs for name in run.varied))
    if not names or len(runs) < 2:
        return None
    columns = min(4, len(names))
    figure, grid = pyplot.subplots(
        math.ceil(len(names) / columns), columns, figsize=(3.2 * columns, 3 * math.ceil(len(names) / columns)),
        sharey=True, squeeze=False,
    )  # fmt: skip
    for axes, name in zip(grid.flat, names, strict=False):
        having = [run for run in runs if run.varied.get(name) is not None]
        values = [run.varied[name] for run in having]
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            if min(values) > 0 and max(values) / min(values) > WIDE:
                axes.set_xscale("log")
        else:
            values = [str(value) for value in values]
            if max(map(len, values)) > 6:
                axes.tick_params(axis="x", rotation=30)
        _dots(axes, values, having, metric)
        axes.set_xlabel(name)
    for axes in list(grid.flat)[len(names) :]:
        axes.remove()
    grid[0][0].set_ylabel(metric)
    figure.tight_layout()
    return figure


def _dots(axes: Any, places: Sequence[Any], runs: Sequence["Run"], metric: str) -> None:
    # all places at once, in one invisible line, so that the order of choices does not depend on their status
    axes.plot(places, [run.summary[metric] for run in runs], linestyle="none")
    for status, colour in COLOURS.items():
        those = [
            (place, run.summary[metric]) for place, run in zip(places, runs, strict=True) if run.status == status
        ]
        if those:
            axes.plot(*zip(*those, strict=True), linestyle="none", marker="o", alpha=0.7, color=colour, label=status)


def _importance(pyplot: Any, weights: Sequence[tuple["Study", dict[str, float]]], metric: str) -> Any:
    """How much each parameter mattered, a panel a study."""
    known = [(study, one) for study, one in weights if one]
    if not known:
        return None
    bars = max(len(one) for _, one in known)
    figure, grid = pyplot.subplots(1, len(known), figsize=(6 * len(known), 1 + 0.4 * bars), squeeze=False)
    for axes, (study, one) in zip(grid.flat, known, strict=True):
        axes.barh(list(one)[::-1], list(one.values())[::-1])
        axes.set_xlabel(f"share of the differences in {metric}")
        axes.set_title(study.study_name)
    figure.tight_layout()
    return figure
