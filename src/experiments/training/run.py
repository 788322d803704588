"""Fit, test, record: one run from its config to its summary. Knows no Hydra."""

import logging
import re
import shlex
import shutil
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.fabric.utilities.exceptions import MisconfigurationException

from experiments.callbacks import MetricHistory, Monitored, Pruning, Throughput
from experiments.callbacks.history import find_callback
from experiments.config.checks.check import config_mistakes, validated
from experiments.config.installation import CHECKOUT, command, typed_override, typed_path
from experiments.errors import Stopped, UserError
from experiments.learning import Classifier
from experiments.monitoring.loggers.log import log_start
from experiments.monitoring.loggers.record import replay
from experiments.runs.allowed_classes import trust_needed
from experiments.runs.environment import code_change_warning
from experiments.runs.run_directory import hold_lock, is_first_rank, on_test, read_summary
from experiments.runs.run_record import clear_outcome, record_resume, record_start, record_summary, record_traceback
from experiments.training.build import Experiment, build
from experiments.training.devices import check_accelerator, cpu_build, device_name, is_slow_in_bf16
from experiments.training.pretrained import delete_initial_weights, fill_input_from_weights, save_initial_weights
from experiments.training.process import (
    prepare_process,
    require_no_new_processes,
    show_messages,
)
from experiments.training.results import (
    best_checkpoint_callback,
    collect_results,
    json_ready,
    on_rank_zero,
    report_end,
    report_failure,
)
from experiments.training.resume import plan_resume

log = logging.getLogger(__name__)
# torch's own words for main memory, a GPU's, and that of its libraries
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def train(
    config: Mapping[str, Any],
    overrides: Sequence[str] | None = None,
    callbacks: Sequence[Callback] = (),
    may_start_processes: bool = True,
) -> dict[str, Any]:
    """Run a composed config to its end and leave a run directory; return what ``summary.json`` says.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns. With ``resume``, its ``run_dir`` is the
            run to resume, and the config stored there rules.
        overrides: what was typed, for the record; those of ``experiments.compose``, if not given.
        callbacks: what is called beside those of the config, and before them.
        may_start_processes: false for a job of a multirun, where a process a device would start the multirun again.

    Raises:
        UserError: if the config cannot be run; the message says what to change.
        Stopped: if a signal ended the run; it can be resumed.
    """
    prepare_process()
    show_messages()
    overrides = getattr(config, "overrides", ()) if overrides is None else overrides
    try:
        config = validated(config, overrides)
    except UserError as error:  # of many runs, one that cannot be is recorded beside the others
        if not (may_start_processes or config.get("check") or config_mistakes(config, overrides)):
            record_start(Path(config["run_dir"]), config, overrides, CHECKOUT or Path.cwd())
            record_summary(Path(config["run_dir"]), {"status": "failed", "error": str(error), "seed": config["seed"]})
        raise
    if config["check"]:
        from experiments.training.dry_run import dry_run

        return dry_run(config)
    run_dir = Path(config["run_dir"])
    with hold_lock(run_dir):
        resume_plan = None
        if config["resume"] and not (config["resume"] == "auto" and not (run_dir / "config.yaml").exists()):
            resume_plan = plan_resume(config, overrides)
            if resume_plan.finished:
                log.info("the run in %s is finished: nothing to resume", typed_path(run_dir))
                summary = read_summary(run_dir) or {}
                if resume_plan.test_is_new:
                    log.info(
                        "to measure it on the test split: %s", _typed("evaluate", "run", run_dir, resume_plan.config)
                    )
                return summary
            config = resume_plan.config
            if change := code_change_warning(run_dir, CHECKOUT or Path.cwd()):
                log.warning("%s", change)
            if tensorboard := (config["logger"] or {}).get("tensorboard"):
                tensorboard["purge_step"] = resume_plan.logged_steps
        else:
            if config["resume"] == "auto":
                log.info("resume=auto: there is no unfinished run of this name and config, so a new one begins")
            check_accelerator(config["trainer"]["accelerator"])
            config = fill_input_from_weights(config)
            on_rank_zero(record_start, run_dir, config, overrides, CHECKOUT or Path.cwd())
        experiment, begun = None, resume_plan is None
        try:
            experiment = build(config, resume_plan.moved_from if resume_plan else None)
            if resume_plan:
                resume_plan.require_same_data_and_devices(experiment.data, experiment.trainer.world_size)
                on_rank_zero(clear_outcome, run_dir, resume_plan.config_to_keep)
                on_rank_zero(record_resume, run_dir, config, CHECKOUT or Path.cwd())
                on_rank_zero(replay, experiment.trainer.loggers, resume_plan.logged_steps)
            begun = True
            if not may_start_processes:
                require_no_new_processes(experiment.trainer)
            experiment.trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]  # checkpoints stay the last
            summary = fit_and_test(experiment, config, resume_plan.checkpoint if resume_plan else None)
        except Stopped as stopped:
            if not is_first_rank():  # the first rank speaks for all; another's exit code would kill it
                raise SystemExit(0) from None
            # of many runs, the sweep says how to go on
            again = f"; continue with: {_typed('train', 'resume', run_dir, config)}" if may_start_processes else ""
            log.warning("%s%s", stopped, again)
            raise
        except Exception as error:
            error = as_user_error(error, config)
            mistake = isinstance(error, UserError)
            if begun:  # a run that was not resumed stays as it was
                failed = {"status": "failed", "error": f"{type(error).__name__}: {error}", "seed": config["seed"]}
                if experiment is not None:
                    failed = report_failure(experiment, config, failed)
                on_rank_zero(record_summary, run_dir, failed)
                if not mistake:
                    on_rank_zero(record_traceback, run_dir, traceback.format_exc())
            if mistake:
                raise error from None
            raise
        on_rank_zero(record_summary, run_dir, summary)
        experiment.trainer.strategy.barrier()  # a rank that ends badly makes Lightning kill the first one
    on_rank_zero(_say_result, summary, run_dir, config["monitor"])
    return summary


def _typed(script: str, key: str, run_dir: Path, config: Mapping[str, Any]) -> str:
    """What to type to do something with a run, with the packages that it has to be trusted with."""
    trust = trust_needed(config)
    trusting = [shlex.quote(f"trust=[{','.join(trust)}]")] if trust else []
    path = typed_override(key, run_dir) if script == "train" else f"{key}={typed_path(run_dir)}"
    return " ".join([command(script), path, *trusting])


def as_user_error(error: Exception, config: Mapping[str, Any]) -> Exception:
    """A UserError for a fault that the user can mend, such as too little memory; otherwise the error itself."""
    if isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY):
        return UserError(
            f"out of memory: {str(error).splitlines()[0]} Lower data.batch_size (now "
            f"{config['data'].get('batch_size')}; trainer.accumulate_grad_batches keeps the effective size) or the "
            "network's width, or use trainer.precision=bf16-mixed."
        )
    if isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error):
        return UserError(f"deterministic=true: {str(error).split(',')[0]}; choose something else, or leave it out")
    if isinstance(error, ValueError) and "Expected more than 1 value per channel" in str(error):
        return UserError(
            f"batch normalisation cannot take a batch of one image: choose another data.batch_size (now "
            f"{config['data'].get('batch_size')}; the last batch is what is left over), or model.net.norm=layer"
        )
    if isinstance(error, ValueError) and "SyncBatchNorm layers only work with GPU" in str(error):
        return UserError("trainer.sync_batchnorm=true: it works on GPUs alone. Leave it out")
    if isinstance(error, ValueError) and "val_check_interval" in str(error):  # seen when the data have been read
        return UserError(f"trainer.{str(error).splitlines()[0].strip('`')}".replace("`", ""))
    if isinstance(error, ModuleNotFoundError) and "not installed" in str(error):  # of a callback's, say
        return UserError(" ".join(str(error).replace("`", "").split()))
    if isinstance(error, MisconfigurationException):  # Lightning's own word for a config that cannot be
        return UserError(str(error))
    return error


def fit_and_test(experiment: Experiment, config: Mapping[str, Any], checkpoint: Path | None = None) -> dict[str, Any]:
    """Train, from a checkpoint if given, then evaluate the best one on the test split once; return the summary."""
    data, classifier, trainer = experiment.data, experiment.classifier, experiment.trainer
    net = getattr(classifier, "net", classifier)
    on_rank_zero(_say_start, experiment)
    log_start(trainer.loggers, config, net)
    own: list[Callback] = [Throughput(), MetricHistory()]
    if type(classifier) is not Classifier and any(
        getattr(callback, "monitor", None) == config["monitor"] for callback in trainer.checkpoint_callbacks
    ):
        own.append(Monitored(config["monitor"]))
    trainer.callbacks[:0] = own  # type: ignore[attr-defined]  # checkpoint callbacks stay the last
    if checkpoint is None:
        on_rank_zero(save_initial_weights, config, net)
    trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    on_rank_zero(delete_initial_weights, Path(config["run_dir"]))

    pruned = (pruning := find_callback(trainer, Pruning)) is not None and pruning.pruned
    summary = {"status": "pruned" if pruned else "finished", **collect_results(experiment, config)}
    if config["test"]:
        path = best.best_model_path if (best := best_checkpoint_callback(trainer)) else None
        (results,) = trainer.test(classifier, datamodule=data, ckpt_path=path, weights_only=True, verbose=False)
        summary |= json_ready({name: float(value) for name, value in results.items()})
    report_end(experiment, config, summary)
    return summary


def _say_start(experiment: Experiment) -> None:
    data, classifier = experiment.data, experiment.classifier
    note = getattr(data, "note", "")
    choice = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(data).__name__).lower()  # ImageFolder: image_folder
    log.info("data=%s%s", choice, f" ({note})" if note else "")
    log.info("device: %s", device_name(experiment.trainer))
    if shutil.which("nvidia-smi") and (built := cpu_build()):
        log.warning("%s", built)
    if experiment.trainer.precision.startswith("bf16") and is_slow_in_bf16(experiment.trainer.strategy.root_device):
        log.warning("this processor has no instructions for bf16: trainer.precision=32-true is faster on it")
    log.info("%s", getattr(classifier, "net", classifier))


def _say_result(summary: Mapping[str, Any], run_dir: Path, monitor: str) -> None:
    where = typed_path(run_dir)
    names = dict.fromkeys(("test/accuracy", "test/loss", on_test(monitor), monitor))
    results = [f"{name} {summary[name]:.4f}" for name in names if summary.get(name) is not None]
    speed = f" ({summary['images_per_second']:,.0f} images/s)" if "images_per_second" in summary else ""
    if results:
        log.info("%s", "  ".join(results))
    log.info("%.1f s of training%s", summary["train_seconds"], speed)
    log.info("run directory: %s", where)
    if (run_dir / "report.html").exists():
        log.info("report: %s", typed_path(run_dir / "report.html"))
    if next(run_dir.rglob("events.out.tfevents.*"), None):
        log.info("TensorBoard: tensorboard --logdir %s", where)
