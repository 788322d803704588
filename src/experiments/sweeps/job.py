"""What runs around one run of a multirun, in whatever process a launcher lets it run."""

import json
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from experiments.errors import UserError, tell

if TYPE_CHECKING:
    from lightning import Trainer

    from experiments.callbacks import Pruning
    from experiments.sweeps.study import SharedStudy

TRIAL = "EXPERIMENTS_TRIAL"  # the number of the trial that a process runs
_UNDER_WAY: list["Pruning | None"] = []  # the job of this process


@dataclass
class Outcome:
    """How a job ended; travels back through the launcher."""

    directory: str
    error: str | None = None
    mistake: bool = False  # a UserError: the user can mend it


@dataclass
class Job:
    """A task that never raises: a failing run leaves its traceback in its directory and the others go on.

    As a trial of ``shared``, it tells the study by itself, from whatever process it runs in.
    """

    task: TaskFunction
    shared: "SharedStudy | None" = None

    def __call__(self, config: Any) -> Outcome:
        """Run the task; only what ends the whole process (Ctrl-C, a signal) goes through."""
        outcome = Outcome(str(HydraConfig.get().runtime.output_dir))
        if self.shared is not None and os.environ.get(TRIAL) and _first_process():
            return self._try(config, outcome, self.shared, int(os.environ[TRIAL]))
        if self.shared is None:
            _go_on(config, Path(outcome.directory))
        return self._run(config, outcome, None)

    def _run(self, config: Any, outcome: Outcome, pruning: "Pruning | None") -> Outcome:
        _UNDER_WAY.append(pruning)
        try:
            self.task(config)
        except Exception as error:
            outcome.mistake = isinstance(error, UserError)
            outcome.error = str(error) if outcome.mistake else f"{type(error).__name__}: {error}"
            if self.shared is None:
                _tell(error)
            _leave_traceback(Path(outcome.directory), outcome.error)
        finally:
            _UNDER_WAY.pop()
        return outcome

    def _try(self, config: Any, outcome: Outcome, shared: "SharedStudy", number: int) -> Outcome:
        from optuna.trial import TrialState

        from experiments.callbacks import Pruning
        from experiments.sweeps.study import DIRECTORY, ERROR

        study = shared.study()
        trial = shared.claim(study, number)
        if trial is None:
            outcome.error = f"trial {number} was given to another process"
            return outcome

        def report(value: float, step: int) -> bool:
            trial.report(value, step)
            return trial.should_prune()

        pruning = Pruning(report, shared.metric, shared.direction)
        trial.set_user_attr(DIRECTORY, outcome.directory)
        with shared.alive(study, trial):
            try:
                self._run(config, outcome, pruning)
            except BaseException:
                shared.give_back(study, number)
                raise
        if outcome.error is None and pruning.best is None:
            outcome.error = f"no {shared.metric} was ever logged"
        if outcome.error is not None:
            trial.set_user_attr(ERROR, outcome.error)
        state = TrialState.FAIL if outcome.error else TrialState.PRUNED if pruning.pruned else TrialState.COMPLETE
        try:
            study.tell(number, pruning.best if state == TrialState.COMPLETE else None, state=state)
        except ValueError as error:  # it was taken for dead, and is in the queue again
            outcome.error = str(error)
        return outcome


def attach(trainer: "Trainer") -> None:
    """Let a run be the job of this process, if it is one: its trial hears of every validation.

    Raises:
        UserError: if the run would start processes; they would run the whole multirun again.
    """
    if not _UNDER_WAY:
        return
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size > 1 and not (environment and environment.creates_processes_externally):
        raise UserError(
            f"a run of {trainer.world_size} processes cannot be a job of a multirun: each of them would start the "
            "whole multirun again. Run it without -m, let SLURM start the processes (hydra/launcher=submitit_slurm "
            "hydra.launcher.tasks_per_node=2), or give each run one device (trainer.devices=1) and let "
            "hydra.sweeper.workers=2 share the devices out"
        )
    pruning = _UNDER_WAY[-1]
    if pruning is not None:
        trainer.callbacks.insert(0, pruning)  # type: ignore[attr-defined]  # checkpoint callbacks stay the last


def _first_process() -> bool:
    """Whether this process speaks for all that SLURM may have started for this job."""
    from experiments.runs import is_first_rank

    return is_first_rank()


def _go_on(config: DictConfig, directory: Path) -> None:
    """Where a grid's job finds its own run, of the same command, let it go on, or be done if it is."""
    try:
        begun = yaml.safe_load((directory / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return
    if begun == list(HydraConfig.get().overrides.task) and not config.check:
        with read_write(config), open_dict(config):
            config.resume = str(directory)


def _tell(error: Exception) -> None:
    if isinstance(error, UserError):
        job = HydraConfig.get().job
        tell(error, f" in job {job.num} ({job.override_dirname})")
    else:
        traceback.print_exc()


def _leave_traceback(directory: Path, error: str) -> None:
    from experiments.runs import read_summary

    if (read_summary(directory) or {}).get("status") == "finished":  # the run of another command
        return
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "error.txt").exists():
        (directory / "error.txt").write_text(traceback.format_exc())
    if not (directory / "summary.json").exists():
        (directory / "summary.json").write_text(json.dumps({"status": "failed", "error": error}, indent=2) + "\n")
