"""One study, shared by processes that may die at any moment, on one machine or several.

What is in it is true even if a process was killed while writing: the journal's lock is the system's, which frees it
when its holder dies, and half a line at its end is cut off. Every process that runs trials holds a lock beside the
storage; a running trial whose process is gone is failed and goes back into the queue. A database server has no folder
to lock in: there, a process that sends no sign of life for ``GRACE`` seconds counts as gone.
"""

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.errors import UserError
from experiments.sweeps.optuna_internals import (
    record_heartbeat,
    stale_trial_ids,
    storage_of,
    suggest,
    teaching_study,
    trial_id,
)
from experiments.sweeps.space import Space
from experiments.sweeps.storage import BEAT, beside, file_of, opened, quiet, shown
from experiments.sweeps.trials import DEATHS, DIRECTORY, ERROR, LOST, OWNER, RETRY_OF, SWEEP, counted, running

log = logging.getLogger(__name__)
MAX_DEATHS = 10  # a trial that kills its process time and again is failed for good
MAY_DIFFER = ("data_root", "data.root", "trainer.accelerator", "trainer.devices")  # between machines
_HELD: dict[tuple[str, int], tuple[str, FileLock | None]] = {}  # this process's name and lock as an owner of trials

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class SharedStudy:
    """A study in a storage that many processes share. Travels to other processes as these plain values.

    ``space`` is what is searched, ``fixed`` the overrides that all trials have in common.
    """

    address: str
    name: str
    direction: Literal["maximize", "minimize"]
    metric: str
    space: Space
    fixed: list[str]
    pruner: BasePruner = field(default_factory=NopPruner)

    @property
    def file(self) -> Path | None:
        """The storage's file, if it is one."""
        return file_of(self.address)

    def lock(self) -> AbstractContextManager[Any]:
        """Let no other process ask, count or give back meanwhile, where the storage is a file."""
        return nullcontext() if self.file is None else FileLock(beside(self.file, "ask.lock"))

    def study(self, sampler: BaseSampler | None = None) -> optuna.Study:
        """The study as optuna's own object; without a sampler it serves to tell, not to ask.

        Raises:
            UserError: if the storage cannot be opened, or holds another sweep's study of this name.
        """
        sweep = {
            **{name: str(one) for name, one in self.space.items()},
            "hydra.sweeper.metric": self.metric,
            "fixed": sorted(one for one in self.fixed if one.partition("=")[0] not in MAY_DIFFER),
        }
        try:
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.lock():
                study = optuna.create_study(
                    storage=opened(self.address, os.getpid()),
                    sampler=sampler or RandomSampler(),
                    pruner=self.pruner,
                    study_name=self.name,
                    direction=self.direction,
                    load_if_exists=True,
                )
                study = teaching_study(study)
                if SWEEP not in study.user_attrs:
                    study.set_user_attr(SWEEP, sweep)
        except Exception as error:  # whatever a file system, a database or its driver may say
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"the study in {shown(self.address)} cannot be opened: {reason}") from error
        known = {**study.user_attrs[SWEEP], "hydra.sweeper.direction": study.direction.name.lower()}
        ours = {**sweep, "hydra.sweeper.direction": self.direction}
        different = [
            f"{part}: {known.get(part, 'nothing')} -> {ours.get(part, 'nothing')}"
            for part in dict.fromkeys([*known, *ours])
            if known.get(part) != ours.get(part)
        ]
        if different:
            raise UserError(
                f"the study {self.name} in {shown(self.address)} is of another sweep:\n  "
                + "\n  ".join(different)
                + "\nGo on with it by the same command, or name another hydra.sweep.dir or hydra.sweeper.study_name."
            )
        return study

    def owner(self) -> str:
        """This process's name as an owner of trials; its lock is held until the process ends."""
        key = self.address, os.getpid()
        if key not in _HELD:
            name, lock = secrets.token_hex(8), None
            if self.file is not None:
                folder = beside(self.file, "owners")
                folder.mkdir(exist_ok=True)
                lock = FileLock(folder / name)
                lock.acquire()
            _HELD[key] = name, lock
        return _HELD[key][0]

    def is_dead(self, trial: FrozenTrial, stale: set[int]) -> bool:
        """Whether the process of a running trial is gone."""
        if self.file is None:
            return trial_id(trial) in stale
        owner = trial.user_attrs.get(OWNER)
        path = beside(self.file, "owners") / str(owner)
        if owner is None or not path.exists():
            return True  # owners are named under the lock that is held here: it was killed in between
        try:
            with FileLock(path).acquire(timeout=0):
                return True
        except (Timeout, OSError):
            return False

    def recover(self, study: optuna.Study) -> int:
        """Fail the running trials of processes that are gone and put them back into the queue; returns how many."""
        stale: set[int] = set()
        if self.file is None:
            stale = stale_trial_ids(study)
        dead = [trial for trial in running(study) if self.is_dead(trial, stale)]
        for trial in dead:
            at_work = DIRECTORY in trial.user_attrs  # a process that died before is not the trial's fault
            self._requeue(study, trial, trial.user_attrs.get(DEATHS, 0) + at_work)
        return len(dead)

    def ask(
        self, study: optuna.Study, total: int, sampler_of: Callable[[int], BaseSampler] | None = None
    ) -> Trial | None:
        """A new trial, or one from the queue; None if ``total`` trials are done or under way.

        ``sampler_of`` makes the sampler for the trial of a number, if not the study's own is to be asked.
        """
        with self.lock(), quiet():
            self.recover(study)
            if len(counted(study)) >= total:
                return None
            if sampler_of is not None:
                study.sampler = sampler_of(len(study.get_trials(deepcopy=False)))
            trial = study.ask()
            trial.set_user_attr(OWNER, self.owner())
            if self.file is None:
                record_heartbeat(study, trial)
                # without a lock, others may have asked at the same moment: the last ones step back
                if len([other for other in counted(study) if other.number < trial.number]) >= total:
                    trial.set_user_attr(LOST, "one more than asked for")
                    study.tell(trial, state=TrialState.FAIL)
                    return None
            for name, one in self.space.items():
                suggest(trial, name, one)
            return trial

    def claim(self, study: optuna.Study, number: int) -> Trial | None:
        """The trial of this number for this process to run; None if it is no longer to be run."""
        with self.lock():
            trial = next(one for one in study.get_trials(deepcopy=False) if one.number == number)
            if trial.state != TrialState.RUNNING:
                return None
            claimed = Trial(study, trial_id(trial))
            claimed.set_user_attr(OWNER, self.owner())
            return claimed

    def give_back(self, study: optuna.Study, number: int) -> None:
        """Put a trial of this process that was interrupted back into the queue."""
        with self.lock():
            trial = study.trials[number]
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(OWNER) == self.owner():
                self._requeue(study, trial, trial.user_attrs.get(DEATHS, 0))

    def _requeue(self, study: optuna.Study, trial: FrozenTrial, deaths: int) -> None:
        # In this order no moment is left in which a kill could lose a trial or have it run twice.
        storage = storage_of(study)
        if deaths >= MAX_DEATHS:
            storage.set_trial_user_attr(trial_id(trial), ERROR, f"its process died {deaths} times")
        else:
            queued = any(other.user_attrs.get(RETRY_OF) == trial.number for other in study.get_trials(deepcopy=False))
            if not queued and trial.params.keys() == self.space.keys():
                study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number, DEATHS: deaths})
            storage.set_trial_user_attr(trial_id(trial), LOST, "its process ended before it did")
        try:
            storage.set_trial_state_values(trial_id(trial), TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:  # it lived, and ended just now
            log.warning("trial %s ended while it was taken for dead", trial.number)

    @contextmanager
    def alive(self, study: optuna.Study, trial: Trial) -> Iterator[None]:
        """Send signs of life to a database server while a trial runs."""
        if self.file is not None:
            yield
            return
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT):
                record_heartbeat(study, trial)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
