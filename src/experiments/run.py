"""Fit, test, record: what one run does. Knows no Hydra."""

import logging
import os
import re
import shlex
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from experiments import checkpoints, loggers, resume, runs
from experiments.build import Experiment, build
from experiments.callbacks import Pruning, Stopwatch
from experiments.errors import Stopped, UserError
from experiments.runs import is_first_rank
from experiments.sweeps import job

log = logging.getLogger(__name__)


def prepare_process() -> None:
    """Settle what a process must settle before its first parallel operation. Notebooks may call it too.

    Adam's state fills with denormal numbers, which CPUs calculate with many times more slowly; set later than here,
    flushing them to zero has no effect on worker threads.
    """
    torch.set_flush_denormal(True)
    for harmless in (
        ".*does not have many workers.*",  # batches come from memory: loader processes would slow them down
        ".*smaller than the logging interval.*",  # metrics are logged every epoch anyway
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # metrics have met the other ranks already
        ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning's own business with torch
    ):
        warnings.filterwarnings("ignore", message=harmless)
    if logging.getLogger().handlers:  # they say what Lightning's own handlers would say again
        for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).handlers.clear()
    # a run says by itself which device it uses and why it ended
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)


def train(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run a composed config to its end and leave a run directory; return what ``summary.json`` says.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns. With ``resume``, its ``run_dir`` is the
            run to go on with, and the config stored there rules.
        overrides: what was typed, for the record.

    Raises:
        UserError: if the config cannot be run; the message says what to change.
        Stopped: if a signal ended the run; it can be resumed.
    """
    prepare_process()
    run_dir = Path(config["run_dir"])
    with runs.occupied(run_dir):
        going_on = None
        if config["resume"] and not (config["resume"] == "auto" and not (run_dir / "config.yaml").exists()):
            going_on = resume.plan(config, overrides)
            if going_on.finished:
                log.info("the run in %s is finished: nothing to resume", shown(run_dir))
                return runs.read_summary(run_dir) or {}
            config = going_on.config
            if tensorboard := (config["logger"] or {}).get("tensorboard"):
                tensorboard["purge_step"] = going_on.logged_steps
            (run_dir / "summary.json").unlink(missing_ok=True)
        else:
            _on_rank_zero(runs.start, run_dir, config, overrides)
        seed_everything(config["seed"], workers=True, verbose=False)
        try:
            experiment = build(config, going_on.moved_from if going_on else None)
            job.attach(experiment.trainer)
            summary = fit_and_test(experiment, config, going_on.checkpoint if going_on else None)
        except Stopped as stopped:
            if not is_first_rank():  # the first rank speaks for all; another's exit code would kill it
                raise SystemExit(0) from None
            log.warning("%s; go on with: python scripts/train.py resume=%s", stopped, shown(run_dir))
            raise
        except Exception as error:
            error = explained(error, config)
            failed = {"status": "failed", "error": f"{type(error).__name__}: {error}", "seed": config["seed"]}
            _on_rank_zero(runs.finish, run_dir, failed)
            if isinstance(error, UserError):
                raise error from None
            (run_dir / "error.txt").write_text(traceback.format_exc())
            raise
        _on_rank_zero(runs.finish, run_dir, summary)
    _on_rank_zero(_say_result, summary, run_dir)
    return summary


def explained(error: Exception, config: Mapping[str, Any]) -> Exception:
    """A UserError for a fault that the user can mend, such as too little memory; otherwise the error itself."""
    out_of_memory = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if out_of_memory and not isinstance(error, UserError):
        return UserError(
            f"out of memory: {str(error).splitlines()[0]} Lower data.batch_size (now "
            f"{config['data'].get('batch_size')}; trainer.accumulate_grad_batches keeps the effective size) or the "
            "network's width, or use trainer.precision=bf16-mixed."
        )
    if isinstance(error, MisconfigurationException):  # Lightning's own word for a config that cannot be
        return UserError(str(error))
    return error


def fit_and_test(experiment: Experiment, config: Mapping[str, Any], checkpoint: Path | None = None) -> dict[str, Any]:
    """Train, from a checkpoint if given, then evaluate the best one on the test split once; return the summary."""
    data, classifier, trainer = experiment.data, experiment.classifier, experiment.trainer
    net = getattr(classifier, "net", classifier)
    _on_rank_zero(_say_start, experiment)
    loggers.introduce(trainer.loggers, config, net)
    stopwatch = Stopwatch()
    trainer.callbacks.insert(0, stopwatch)  # type: ignore[attr-defined]  # checkpoint callbacks stay the last
    trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)

    best = best_of(trainer)
    pruned = any(isinstance(callback, Pruning) and callback.pruned for callback in trainer.callbacks)  # type: ignore[attr-defined]
    accuracy = best.best_model_score if best else trainer.callback_metrics.get("val/accuracy")
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    summary: dict[str, Any] = {
        "status": "pruned" if pruned else "finished",
        "val/accuracy": None if accuracy is None else float(accuracy),
        "best_checkpoint": os.path.relpath(best.best_model_path, config["run_dir"]) if best else None,
        "best_epoch": checkpoints.read(best.best_model_path)["epoch"] if best else None,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "train_seconds": round(stopwatch.seconds, 3),
        "device": device_name(trainer),
        "seed": config["seed"],
        "train/loss": logged.get("train/loss"),
        "train/accuracy": logged.get("train/accuracy"),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }
    if config["test"]:
        path = best.best_model_path if best else None
        (results,) = trainer.test(classifier, datamodule=data, ckpt_path=path, weights_only=True, verbose=False)
        summary |= {name: float(value) for name, value in results.items()}
    loggers.conclude(trainer.loggers, summary)
    return summary


def best_of(trainer: Trainer) -> ModelCheckpoint | None:
    """The callback that kept a best checkpoint, if one did."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor != "step" and callback.best_model_path:
            return callback
    return None


def device_name(trainer: Trainer) -> str:
    """The device that a run computes on, and the GPU's name where it is one."""
    device = trainer.strategy.root_device
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _on_rank_zero(function: Any, *arguments: Any) -> None:
    rank_zero_only(function)(*arguments)


def shown(path: Path) -> str:
    """A path as a user would type it: quoted where it must be, relative where it lies below the current folder."""
    return shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))


def _say_start(experiment: Experiment) -> None:
    data, classifier = experiment.data, experiment.classifier
    note = getattr(data, "note", "")
    choice = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(data).__name__).lower()  # FashionMNIST: fashion_mnist
    log.info("data=%s%s", choice, f" ({note})" if note else "")
    log.info("device: %s", device_name(experiment.trainer))
    log.info("%s", getattr(classifier, "net", classifier))


def _say_result(summary: Mapping[str, Any], run_dir: Path) -> None:
    where = shown(run_dir)
    names = ("test/accuracy", "test/loss", "val/accuracy")
    results = [f"{name} {summary[name]:.4f}" for name in names if summary.get(name) is not None]
    log.info("%s  in %.1f s of training", "  ".join(results), summary["train_seconds"])
    log.info("run directory: %s", where)
    log.info("look at it: tensorboard --logdir %s", where)
