"""Gather the results of a run, and tell loggers and the report how it ended."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from experiments.callbacks import Freeze, MetricHistory, Throughput
from experiments.callbacks.history import find_callback
from experiments.learning import Task
from experiments.monitoring.confusion import Confusion
from experiments.monitoring.loggers.log import log_end
from experiments.monitoring.per_class import write_class_tables
from experiments.monitoring.report import Report
from experiments.runs.checkpoint_files import read_checkpoint
from experiments.training.build import Experiment
from experiments.training.devices import device_name

log = logging.getLogger(__name__)


def collect_results(experiment: Experiment, config: Mapping[str, Any]) -> dict[str, Any]:
    """Collect a run's results, at its end or where it failed; what was not reached by then is None."""
    trainer = experiment.trainer
    throughput, history = find_callback(trainer, Throughput), find_callback(trainer, MetricHistory)
    best = best_checkpoint_callback(trainer)
    seconds = throughput.seconds or throughput.state_dict()["seconds"] if throughput else math.nan
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    at_best = {**logged, **(history.best(best) if history else {})}
    if best and best.monitor and best.best_model_score is not None:
        at_best[best.monitor] = float(best.best_model_score)
    net = getattr(experiment.classifier, "net", experiment.classifier)
    values: dict[str, Any] = {
        **dict.fromkeys((*_metric_names(experiment.classifier, "val"), config["monitor"])),
        **{name: value for name, value in at_best.items() if name.startswith("val/") or name == config["monitor"]},
        "best_checkpoint": _below(best.best_model_path, config["run_dir"]) if best else None,
        "best_epoch": read_checkpoint(best.best_model_path)["epoch"] + 1 if best else None,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "train_seconds": round(seconds, 3),
        **(throughput.rates if throughput else {}),
        "device": device_name(trainer),
        "seed": config["seed"],
        **{name: logged.get(name) for name in _metric_names(experiment.classifier, "train")},
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }
    if frozen := [each.describe(experiment.classifier) for each in trainer.callbacks if isinstance(each, Freeze)]:  # type: ignore[attr-defined]
        values["frozen"] = frozen
    return json_ready(values)


def _metric_names(module: LightningModule, stage: str) -> list[str]:
    """The metrics of a stage; of a LightningModule of one's own, those that it most likely logs."""
    metrics = module.stage_metrics(stage) if isinstance(module, Task) else (("accuracy", None), ("loss", None))
    return [f"{stage}/{name}" for name, _ in metrics]


def _below(path: str, folder: str) -> str:
    """A path as it is named from a folder; links are resolved in both, as Lightning does in one."""
    resolved, start = Path(path).resolve(), Path(folder).resolve()
    return resolved.relative_to(start).as_posix() if resolved.is_relative_to(start) else str(resolved)


def json_ready(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None for what is not finite: JSON knows no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def report_end(experiment: Experiment, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Tell the loggers how the run ended, and leave its report."""
    trainer, classifier = experiment.trainer, experiment.classifier
    log_end(trainer.loggers, summary, str(config["monitor"]))
    if confusion := find_callback(trainer, Confusion):
        for stage, matrix in confusion.matrices.items():
            on_rank_zero(write_class_tables, Path(config["run_dir"]), stage, matrix.numpy(), confusion.class_names)
    if report := find_callback(trainer, Report):
        on_rank_zero(report.write, trainer, config, summary, getattr(classifier, "net", classifier))


def report_failure(experiment: Experiment, config: Mapping[str, Any], failed: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a run that failed: whatever can still be said. Returns its summary."""
    try:
        failed = {**collect_results(experiment, config), **failed}
        report_end(experiment, config, failed)
    except Exception as error:  # the run's own error is what its user must see
        log.warning("the loggers were not told of the end: %s: %s", type(error).__name__, error)
    return dict(failed)


def best_checkpoint_callback(trainer: Trainer) -> ModelCheckpoint | None:
    """The callback that kept a best checkpoint, if one did."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor != "step" and callback.best_model_path:
            return callback
    return None


def on_rank_zero(function: Any, *arguments: Any) -> None:
    """Call a function in the first of a run's processes alone."""
    rank_zero_only(function)(*arguments)
