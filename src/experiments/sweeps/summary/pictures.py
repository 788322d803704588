"""Draw many runs with Optuna's plots: their history, what each parameter did, how much it mattered."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.sweeps.summary.runs import Run

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

LOG_RATIO = 30.0  # values that span more than this ratio are shown on a log scale


def can_draw(*packages: str) -> bool:
    """Whether matplotlib and further packages are installed."""
    return all(find_spec(package) is not None for package in ("matplotlib", *packages))


def draw(runs: Sequence[Run], metric: str, minimize: bool, folder: Path) -> list[Path]:
    """Write ``history.png``, ``slice.png`` and ``importance.png``; those that show something."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    study = as_study(runs, metric, minimize)
    drawers: dict[str, Any] = {
        "history": plots.plot_optimization_history,
        "slice": plots.plot_slice,
        "importance": plots.plot_param_importances,
    }
    written = []
    for name, plot in drawers.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few runs, of what is experimental
            try:
                axes = np.ravel(plot(study, target_name=metric))
            except (ValueError, RuntimeError, ZeroDivisionError):  # too few runs, or all alike
                continue
        if axes.size and axes[0].has_data():
            for one in axes if name == "slice" else ():
                one.tick_params(axis="x", rotation=40)  # long choices stand beside each other
            written.append(folder / f"{name}.png")
            axes[0].figure.savefig(written[-1], dpi=120, bbox_inches="tight")
        pyplot.close("all")
    return written


def as_study(runs: Sequence[Run], metric: str, minimize: bool) -> "Study":
    """Return the finished runs as trials of a study in memory, in the order of their names."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    finished = [run for run in runs if run.status == "finished" and isinstance(run.summary.get(metric), (int, float))]
    values: dict[str, list[Any]] = {}
    for run in finished:
        for name, value in run.varied.items():
            values.setdefault(name, []).append(value)
    distributions = {name: _distribution(some) for name, some in values.items()}
    study = optuna.create_study(direction="minimize" if minimize else "maximize")
    for run in sorted(finished, key=lambda run: (int(run.name) if run.name.isdecimal() else 0, run.name)):
        own = {name: distributions[name] for name in run.varied}
        params = {
            name: run.varied[name]
            if isinstance(one, optuna.distributions.FloatDistribution)
            else str(run.varied[name])
            for name, one in own.items()
        }
        trial = optuna.trial.create_trial(params=params, distributions=own, value=run.summary[metric])
        study.add_trial(trial)
    return study


def _distribution(values: Sequence[Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        return FloatDistribution(low, high, log=low > 0 and high / low > LOG_RATIO)
    return CategoricalDistribution(sorted({str(value) for value in values}))
