"""One study, shared by processes that may die at any moment, on one machine or several.

The journal stays valid even if a process was killed while writing: the operating system frees the lock of a process
that dies, and half a line at the journal's end is cut off. Every process that runs trials holds a file lock beside
the journal; a running trial whose process is gone is marked as failed, and its parameters are queued again.
"""

import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.errors import UserError
from experiments.sweeps.optuna_internals import storage_of, suggest, trial_id, with_failures_shown_to_sampler
from experiments.sweeps.space import Space
from experiments.sweeps.storage import beside, journal_storage
from experiments.sweeps.trials import (
    DEATHS_ATTR,
    DIRECTORY_ATTR,
    ERROR_ATTR,
    LOST_ATTR,
    OWNER_ATTR,
    RETRY_OF_ATTR,
    SWEEP_ATTR,
    counted,
    running,
)

log = logging.getLogger(__name__)
MAX_DEATHS = 10  # a trial that kills its process time and again is failed for good
MACHINE_SPECIFIC = ("data_root", "data.root", "trainer.accelerator", "trainer.devices")  # overrides that may differ
STUDY_NAME = "sweep"  # a journal holds one study
_OWNER_LOCKS: dict[tuple[Path, int], FileLock] = {}  # this process's lock as an owner of trials

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class SharedStudy:
    """A study in a journal that many processes share. Travels to other processes as these plain values.

    ``space`` is what is searched, ``fixed`` the overrides that all trials have in common.
    """

    journal: Path
    direction: Literal["maximize", "minimize"]
    metric: str
    space: Space
    fixed: list[str]
    pruner: BasePruner = field(default_factory=NopPruner)

    def lock(self) -> FileLock:
        """The lock under which processes draw, claim, count and requeue trials."""
        return FileLock(beside(self.journal, "ask.lock"))

    def open_study(self, sampler: BaseSampler | None = None) -> optuna.Study:
        """Create or load Optuna's study; its default sampler draws at random.

        Raises:
            UserError: if the journal cannot be opened, or holds the study of another sweep.
        """
        sweep = {
            **{name: str(distribution) for name, distribution in self.space.items()},
            "hydra.sweeper.metric": self.metric,
            "fixed": sorted(
                override for override in self.fixed if override.partition("=")[0] not in MACHINE_SPECIFIC
            ),
        }
        try:
            self.journal.parent.mkdir(parents=True, exist_ok=True)
            with self.lock():
                study = optuna.create_study(
                    storage=journal_storage(self.journal, os.getpid()),
                    sampler=sampler or RandomSampler(),
                    pruner=self.pruner,
                    study_name=STUDY_NAME,
                    direction=self.direction,
                    load_if_exists=True,
                )
                study = with_failures_shown_to_sampler(study)
                if SWEEP_ATTR not in study.user_attrs:
                    study.set_user_attr(SWEEP_ATTR, sweep)
        except Exception as error:  # whatever a file system or a damaged journal may say
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"the study in {self.journal} cannot be opened: {reason}") from error
        known = {**study.user_attrs[SWEEP_ATTR], "hydra.sweeper.direction": study.direction.name.lower()}
        ours = {**sweep, "hydra.sweeper.direction": self.direction}
        different = [
            f"{part}: {known.get(part, 'nothing')} -> {ours.get(part, 'nothing')}"
            for part in dict.fromkeys([*known, *ours])
            if known.get(part) != ours.get(part)
        ]
        if different:
            raise UserError(
                f"the study in {self.journal} is of another sweep:\n  "
                + "\n  ".join(different)
                + "\nContinue it with the same command, or name another hydra.sweep.dir."
            )
        return study

    def register_as_owner(self) -> str:
        """Take a lock that shows this process to be alive until it ends; return its name, which its trials carry."""
        key = self.journal, os.getpid()
        if key not in _OWNER_LOCKS:
            folder = beside(self.journal, "owners")
            folder.mkdir(exist_ok=True)
            _OWNER_LOCKS[key] = FileLock(folder / secrets.token_hex(8))
            _OWNER_LOCKS[key].acquire()
        return Path(_OWNER_LOCKS[key].lock_file).name

    def is_dead(self, trial: FrozenTrial) -> bool:
        """Whether the process of a running trial is gone."""
        owner = trial.user_attrs.get(OWNER_ATTR)
        path = beside(self.journal, "owners") / str(owner)
        if owner is None or not path.exists():
            return True  # owners are set under the lock that is held here: its process was killed before it did so
        try:
            with FileLock(path).acquire(timeout=0):
                return True
        except (Timeout, OSError):
            return False

    def requeue_lost(self, study: optuna.Study) -> int:
        """Fail the running trials of processes that are gone and put them back into the queue; returns how many."""
        dead = [trial for trial in running(study) if self.is_dead(trial)]
        for trial in dead:
            had_started = DIRECTORY_ATTR in trial.user_attrs  # a death counts only if the trial had started
            self._requeue(study, trial, trial.user_attrs.get(DEATHS_ATTR, 0) + had_started)
        return len(dead)

    def ask(
        self, study: optuna.Study, total: int, sampler_of: Callable[[int], BaseSampler] | None = None
    ) -> Trial | None:
        """Return a new trial, or one from the queue; None if ``total`` trials are done or under way.

        ``sampler_of`` makes the sampler for a trial by its number, instead of the study's own sampler.
        """
        with self.lock():
            self.requeue_lost(study)
            if len(counted(study)) >= total:
                return None
            if sampler_of is not None:
                study.sampler = sampler_of(len(study.get_trials(deepcopy=False)))
            trial = study.ask()
            trial.set_user_attr(OWNER_ATTR, self.register_as_owner())
            for name, distribution in self.space.items():
                suggest(trial, name, distribution)
            return trial

    def claim(self, study: optuna.Study, number: int) -> Trial | None:
        """Take over the trial of this number; None if it has ended meanwhile."""
        with self.lock():
            trial = next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)
            if trial.state != TrialState.RUNNING:
                return None
            claimed = Trial(study, trial_id(trial))
            claimed.set_user_attr(OWNER_ATTR, self.register_as_owner())
            return claimed

    def requeue(self, study: optuna.Study, number: int) -> None:
        """Put a trial of this process that was interrupted back into the queue."""
        with self.lock():
            trial = study.trials[number]
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(OWNER_ATTR) == self.register_as_owner():
                self._requeue(study, trial, trial.user_attrs.get(DEATHS_ATTR, 0))

    def _requeue(self, study: optuna.Study, trial: FrozenTrial, deaths: int) -> None:
        # In this order a kill at any moment neither loses the trial nor lets it run twice.
        storage = storage_of(study)
        if deaths >= MAX_DEATHS:
            storage.set_trial_user_attr(trial_id(trial), ERROR_ATTR, f"its process died {deaths} times")
        else:
            queued = any(
                other.user_attrs.get(RETRY_OF_ATTR) == trial.number for other in study.get_trials(deepcopy=False)
            )
            if not queued and trial.params.keys() == self.space.keys():
                study.enqueue_trial(trial.params, user_attrs={RETRY_OF_ATTR: trial.number, DEATHS_ATTR: deaths})
            storage.set_trial_user_attr(trial_id(trial), LOST_ATTR, "its process ended before it did")
        try:
            storage.set_trial_state_values(trial_id(trial), TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:  # it lived, and ended just now
            log.warning("trial %s ended while it was taken for dead", trial.number)
