"""Plot many runs with Optuna: their history, each parameter's values, and how much each parameter mattered."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config.installation import in_notebook
from experiments.sweeps.summary.runs import Run

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

LOG_RATIO = 30.0  # values that span more than this ratio are shown on a log scale


def are_installed(*packages: str) -> bool:
    """Whether packages are there to be imported."""
    return all(find_spec(package) is not None for package in packages)


def save_plots(runs: Sequence[Run], metric: str, minimize: bool, folder: Path) -> list[Path]:
    """Save ``history.png``, ``slice.png`` and ``importance.png``, but none that would be empty; return paths."""
    import matplotlib
    import numpy as np

    if not in_notebook():  # which shows plots by a backend of its own
        matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as optuna_plots

    study = study_from_runs(runs, metric, minimize)
    plots: dict[str, Any] = {
        "history": optuna_plots.plot_optimization_history,
        "slice": optuna_plots.plot_slice,
        "importance": optuna_plots.plot_param_importances,
    }
    paths = []
    for name, plot in plots.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls these plots experimental, and warns of few trials
            try:
                axes = np.ravel(plot(study, target_name=metric))
            except (ValueError, RuntimeError, ZeroDivisionError):  # too few runs, or all alike
                continue
        if axes.size and axes[0].has_data():
            if name == "slice":
                for axis in axes:
                    axis.tick_params(axis="x", rotation=40)  # or long choices would overlap
            paths.append(folder / f"{name}.png")
            axes[0].figure.savefig(paths[-1], dpi=120, bbox_inches="tight")
        pyplot.close("all")
    return paths


def study_from_runs(runs: Sequence[Run], metric: str, minimize: bool) -> "Study":
    """A study in memory whose trials are the finished runs, in the order of their names."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    finished = [run for run in runs if run.status == "finished" and isinstance(run.summary.get(metric), (int, float))]
    values_by_parameter: dict[str, list[Any]] = {}
    for run in finished:
        for parameter, value in run.varied.items():
            values_by_parameter.setdefault(parameter, []).append(value)
    distributions = {parameter: _distribution(values) for parameter, values in values_by_parameter.items()}
    study = optuna.create_study(direction="minimize" if minimize else "maximize")
    for run in sorted(finished, key=_number_and_name):
        params = {}
        for parameter, value in run.varied.items():
            is_number = isinstance(distributions[parameter], optuna.distributions.FloatDistribution)
            params[parameter] = value if is_number else str(value)
        trial = optuna.trial.create_trial(
            params=params,
            distributions={parameter: distributions[parameter] for parameter in params},
            value=run.summary[metric],
        )
        study.add_trial(trial)
    return study


def _number_and_name(run: Run) -> tuple[str, int, str]:
    folder, _, last = run.name.rpartition("/")
    return folder, int(last) if last.isdecimal() else 0, last


def _distribution(values: Sequence[Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        return FloatDistribution(low, high, log=low > 0 and high / low > LOG_RATIO)
    return CategoricalDistribution(sorted({str(value) for value in values}))
