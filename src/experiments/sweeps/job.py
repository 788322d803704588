"""What runs around one run of a multirun, in whatever process a launcher lets it run."""

import json
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write

from experiments.config.plain_values import overrides_of
from experiments.errors import UserError, tell

if TYPE_CHECKING:
    from lightning import Callback

    from experiments.sweeps.study import SharedStudy

TRIAL = "EXPERIMENTS_TRIAL"  # the environment variable with the number of the trial that a process runs


@dataclass
class Outcome:
    """How a job ended; travels back through the launcher."""

    directory: str
    error: str | None = None
    mistake: bool = False  # a UserError: the user can mend it


@dataclass
class Job:
    """A task that never raises: a failing run leaves its traceback in its directory and the others go on.

    ``task`` receives a config, as Hydra's do, and the callbacks of its run beside those of the config. With a study
    in ``shared``, the job is one of its trials and reports to it, from whatever process it runs in.
    """

    task: Callable[..., Any]
    shared: "SharedStudy | None" = None

    def __call__(self, config: Any) -> Outcome:
        """Run the task; only what ends the whole process (Ctrl-C, a signal) goes through."""
        outcome = Outcome(str(HydraConfig.get().runtime.output_dir))
        if self.shared is None:
            _resume_if_started(config, Path(outcome.directory))
        elif os.environ.get(TRIAL):
            if _first_process():
                return self._run_trial(config, outcome, self.shared, int(os.environ[TRIAL]))
            from experiments.callbacks import Pruning

            told = Pruning(lambda *_: False, self.shared.metric, self.shared.direction)  # by the first rank
            return self._run(config, outcome, told)
        return self._run(config, outcome)

    def _run(self, config: Any, outcome: Outcome, *callbacks: "Callback") -> Outcome:
        try:
            self.task(config, callbacks)
        except Exception as error:
            outcome.mistake = isinstance(error, UserError)
            outcome.error = str(error) if outcome.mistake else f"{type(error).__name__}: {error}"
            if self.shared is None:
                _print_error(error)
            _leave_traceback(Path(outcome.directory), outcome.error)
        return outcome

    def _run_trial(self, config: Any, outcome: Outcome, shared: "SharedStudy", number: int) -> Outcome:
        from optuna.trial import TrialState

        from experiments.callbacks import Pruning
        from experiments.sweeps.trials import DIRECTORY_ATTR, ERROR_ATTR

        study = shared.open_study()
        trial = shared.claim(study, number)
        if trial is None:
            outcome.error = f"trial {number} has ended already, or another process has it"
            return outcome

        def report(value: float, step: int) -> bool:
            trial.report(value, step)
            return trial.should_prune()

        pruning = Pruning(report, shared.metric, shared.direction)
        trial.set_user_attr(DIRECTORY_ATTR, outcome.directory)
        try:
            self._run(config, outcome, pruning)
        except BaseException:
            shared.requeue(study, number)
            raise
        if outcome.error is None and pruning.best is None:
            outcome.error = f"no {shared.metric} was ever logged"
        if outcome.error is not None:
            trial.set_user_attr(ERROR_ATTR, outcome.error)
        state = TrialState.FAIL if outcome.error else TrialState.PRUNED if pruning.pruned else TrialState.COMPLETE
        try:
            study.tell(number, pruning.best if state == TrialState.COMPLETE else None, state=state)
        except ValueError as error:  # another process took it for dead, and queued it again
            outcome.error = str(error)
        return outcome


def _first_process() -> bool:
    """Whether this process speaks for all that SLURM may have started for this job."""
    from experiments.runs.run_directory import is_first_rank

    return is_first_rank()


def _resume_if_started(config: DictConfig, directory: Path) -> None:
    """Set ``config.resume`` where a grid's job finds a run of the same command in its directory."""
    try:
        stored_overrides = yaml.safe_load((directory / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return
    if stored_overrides == overrides_of(HydraConfig.get()) and not config.check:
        with read_write(config), open_dict(config):
            config.resume = str(directory)


def _print_error(error: Exception) -> None:
    if isinstance(error, UserError):
        job = HydraConfig.get().job
        tell(error, f" in job {job.num} ({job.override_dirname})")
    else:
        traceback.print_exc()


def _leave_traceback(directory: Path, error: str) -> None:
    from experiments.runs.run_directory import read_summary

    if (read_summary(directory) or {}).get("status") == "finished":  # by another command: leave it
        return
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "error.txt").exists():
        (directory / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
    if not (directory / "summary.json").exists():
        (directory / "summary.json").write_text(json.dumps({"status": "failed", "error": error}, indent=2) + "\n")
