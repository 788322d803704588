"""Fit, test, record: what one run does. Knows no Hydra."""

import logging
import math
import os
import re
import shlex
import sys
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

from experiments import check, checkpoints, loggers, memory, resume, runs, signatures
from experiments.build import Experiment, build, check_accelerator
from experiments.callbacks import History, Pruning, Report, Stopwatch
from experiments.callbacks.report import find
from experiments.config.installation import command
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
    memory.keep_freed()
    if not torch.cuda.is_available():
        # Lightning has torch ask the driver's library, which is searched for anew where there is none; Adam asks
        # each step, and waits a tenth of the MLP's
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    for harmless in (
        ".*does not have many workers.*",  # batches come from memory: loader processes would slow them down
        ".*Checkpoint directory .* exists and is not empty.*",  # a run that goes on
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


def show_messages() -> None:
    """Print what runs say where nobody has set up logging, as in a notebook."""
    ours = logging.getLogger("experiments")
    if not logging.getLogger().handlers and not ours.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)


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
    check.require(check.mistakes(config, overrides))
    prepare_process()
    show_messages()
    if config["check"]:
        from experiments.rehearsal import rehearse

        return rehearse(config, overrides)
    run_dir = Path(config["run_dir"])
    with runs.occupied(run_dir):
        going_on = None
        if config["resume"] and not (config["resume"] == "auto" and not (run_dir / "config.yaml").exists()):
            going_on = resume.plan(config, overrides)
            if going_on.finished:
                log.info("the run in %s is finished: nothing to resume", shown(run_dir))
                summary = runs.read_summary(run_dir) or {}
                if going_on.to_test:
                    log.info("to measure it on the test split: %s run=%s", command("evaluate"), shown(run_dir))
                return summary
            config = going_on.config
            if tensorboard := (config["logger"] or {}).get("tensorboard"):
                tensorboard["purge_step"] = going_on.logged_steps
        else:
            check_accelerator(config["trainer"]["accelerator"])
            _on_rank_zero(runs.start, run_dir, config, overrides)
        seed_everything(config["seed"], workers=True, verbose=False)
        experiment, begun = None, going_on is None
        try:
            check.require(signatures.mistakes(config, overrides))
            experiment = build(config, going_on.moved_from if going_on else None)
            if going_on:
                going_on.require_fit(experiment.data, experiment.trainer.world_size)
                _on_rank_zero(runs.reopen, run_dir, going_on.record)
            begun = True
            job.attach(experiment.trainer)
            summary = fit_and_test(experiment, config, going_on.checkpoint if going_on else None)
        except Stopped as stopped:
            if not is_first_rank():  # the first rank speaks for all; another's exit code would kill it
                raise SystemExit(0) from None
            log.warning("%s; go on with: %s resume=%s", stopped, command("train"), shown(run_dir))
            raise
        except Exception as error:
            error = explained(error, config)
            mistake = isinstance(error, UserError)
            if begun:  # a run that was not gone on with stays as it was
                failed = {"status": "failed", "error": f"{type(error).__name__}: {error}", "seed": config["seed"]}
                if experiment is not None:
                    failed = conclude_failed(experiment, config, failed)
                _on_rank_zero(runs.finish, run_dir, failed)
                if not mistake:
                    _on_rank_zero(runs.record_fault, run_dir, traceback.format_exc())
            if mistake:
                raise error from None
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
    if isinstance(error, ValueError) and "Expected more than 1 value per channel" in str(error):
        return UserError(
            f"batch normalisation cannot take a batch of one image: choose another data.batch_size (now "
            f"{config['data'].get('batch_size')}; the last batch is what is left over), or model.net.norm=layer"
        )
    if isinstance(error, ValueError) and "val_check_interval" in str(error):  # seen when the data have been read
        return UserError(f"trainer.{str(error).splitlines()[0].strip('`')}".replace("`", ""))
    if isinstance(error, MisconfigurationException):  # Lightning's own word for a config that cannot be
        return UserError(str(error))
    return error


def fit_and_test(experiment: Experiment, config: Mapping[str, Any], checkpoint: Path | None = None) -> dict[str, Any]:
    """Train, from a checkpoint if given, then evaluate the best one on the test split once; return the summary."""
    data, classifier, trainer = experiment.data, experiment.classifier, experiment.trainer
    net = getattr(classifier, "net", classifier)
    _on_rank_zero(_say_start, experiment)
    loggers.introduce(trainer.loggers, config, net)
    # checkpoint callbacks stay the last
    trainer.callbacks[:0] = [Stopwatch(), History()]  # type: ignore[attr-defined]
    trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)

    pruned = (pruning := find(trainer, Pruning)) is not None and pruning.pruned
    summary = {"status": "pruned" if pruned else "finished", **reached(experiment, config)}
    if config["test"]:
        path = best.best_model_path if (best := best_of(trainer)) else None
        (results,) = trainer.test(classifier, datamodule=data, ckpt_path=path, weights_only=True, verbose=False)
        summary |= finite({name: float(value) for name, value in results.items()})
    conclude(experiment, config, summary)
    return summary


def reached(experiment: Experiment, config: Mapping[str, Any]) -> dict[str, Any]:
    """What training came to, at its end or where it failed; None where it did not come so far."""
    trainer = experiment.trainer
    stopwatch, history, best = find(trainer, Stopwatch), find(trainer, History), best_of(trainer)
    seconds = stopwatch.seconds or stopwatch.state_dict()["seconds"] if stopwatch else math.nan
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    at_best = {**logged, **(history.best(best) if history else {})}
    if best and best.monitor == "val/accuracy" and best.best_model_score is not None:
        at_best["val/accuracy"] = float(best.best_model_score)
    net = getattr(experiment.classifier, "net", experiment.classifier)
    values: dict[str, Any] = {
        "val/accuracy": at_best.get("val/accuracy"),
        "val/loss": at_best.get("val/loss"),
        "best_checkpoint": os.path.relpath(best.best_model_path, config["run_dir"]) if best else None,
        "best_epoch": checkpoints.read(best.best_model_path)["epoch"] if best else None,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "train_seconds": round(seconds, 3),
        **(stopwatch.throughput if stopwatch else {}),
        "device": device_name(trainer),
        "seed": config["seed"],
        "train/loss": logged.get("train/loss"),
        "train/accuracy": logged.get("train/accuracy"),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }
    return finite(values)


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None for what is not finite: JSON knows no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def conclude(experiment: Experiment, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Tell the loggers how the run ended, and leave its report."""
    trainer, classifier = experiment.trainer, experiment.classifier
    loggers.conclude(trainer.loggers, summary)
    if report := find(trainer, Report):
        _on_rank_zero(report.write, trainer, config, summary, getattr(classifier, "net", classifier))


def conclude_failed(experiment: Experiment, config: Mapping[str, Any], failed: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a run that failed: whatever can still be said. Returns its summary."""
    try:
        failed = {**reached(experiment, config), **failed}
        conclude(experiment, config, failed)
    except Exception as error:  # the run's own error is what its user must see
        log.warning("the loggers were not told of the end: %s: %s", type(error).__name__, error)
    return dict(failed)


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


def is_slow_in_bf16(device: torch.device) -> bool:
    """Whether a device imitates bf16, at a multiple of what 32 bits cost."""
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return device.type == "cpu" and known is not None and not known()


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
    if experiment.trainer.precision.startswith("bf16") and is_slow_in_bf16(experiment.trainer.strategy.root_device):
        log.warning("this processor has no instructions for bf16: trainer.precision=32-true is faster on it")
    log.info("%s", getattr(classifier, "net", classifier))


def _say_result(summary: Mapping[str, Any], run_dir: Path) -> None:
    where = shown(run_dir)
    names = ("test/accuracy", "test/loss", "val/accuracy")
    results = [f"{name} {summary[name]:.4f}" for name in names if summary.get(name) is not None]
    speed = f" ({summary['images_per_second']:,.0f} images/s)" if "images_per_second" in summary else ""
    log.info("%s  in %.1f s of training%s", "  ".join(results), summary["train_seconds"], speed)
    log.info("run directory: %s", where)
    ways = [shown(run_dir / "report.html")] if (run_dir / "report.html").exists() else []
    ways += [f"tensorboard --logdir {where}"] if next(run_dir.rglob("events.out.tfevents.*"), None) else []
    if ways:
        log.info("look at it: %s", ", or ".join(ways))
