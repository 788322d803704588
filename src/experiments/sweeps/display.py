"""Print a line for each trial that ended."""

import os
import time
from pathlib import Path

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from experiments.sweeps.study import SharedStudy
from experiments.sweeps.trials import ERROR_ATTR, STATUS, counted


class Display:
    """One line a trial that ended, whoever ran it: its value, how many are done, the best so far, the time left."""

    def __init__(self, study: Study, total: int, direction: str, shared: SharedStudy) -> None:
        self.study, self.total, self.shared = study, total, shared
        self.better = max if direction == "maximize" else min
        self.shown = {trial.number for trial in self._ended()}
        self.at_start = len(self.shown)
        self.started = time.monotonic()

    def _ended(self) -> list[FrozenTrial]:
        return [trial for trial in counted(self.study) if trial.state.is_finished()]

    def start(self) -> None:
        """What is there already."""
        with self.shared.lock():
            lost = self.shared.requeue_lost(self.study)
        again = f", {lost} that ended with their process go back into the queue" if lost else ""
        journal = self.shared.journal
        where = os.path.relpath(journal) if journal.is_relative_to(Path.cwd()) else journal
        print(f"study in {where}: {self.at_start} of {self.total} trials are done{again}", flush=True)

    def print_ended(self) -> None:
        """Print what has ended since it was last called."""
        ended = self._ended()
        for trial in sorted(ended, key=lambda trial: str(trial.datetime_complete)):
            if trial.number in self.shown:
                continue
            self.shown.add(trial.number)
            print(self._line(trial, [other for other in ended if other.number in self.shown]), flush=True)

    def _line(self, trial: FrozenTrial, ended: list[FrozenTrial]) -> str:
        values = {other.number: other.value for other in ended if other.state == TrialState.COMPLETE}
        states = [STATUS[other.state] for other in ended]
        also = "".join(f", {states.count(name)} {name}" for name in ("pruned", "failed") if name in states)
        leader = self.better(values, key=lambda number: values[number] or 0.0) if values else None
        record = f", best {values[leader]:.4f} by trial {leader}" if leader is not None else ""
        seconds = (time.monotonic() - self.started) / (len(ended) - self.at_start) * (self.total - len(ended))
        left = f", {clock(seconds)} left" if seconds > 0 else ""
        what = f"{trial.value:.4f}" if trial.state == TrialState.COMPLETE else STATUS[trial.state]
        if trial.state == TrialState.FAIL:
            what = f"failed: {str(trial.user_attrs.get(ERROR_ATTR, '')).splitlines()[0][:200]}"
        return f"trial {trial.number}: {what}  ({len(ended)} of {self.total}{also}{record}{left})"

    def stopped(self, again: str) -> None:
        """Say how to continue a sweep that was interrupted."""
        self.print_ended()
        print(f"stopped with {len(self.shown)} of {self.total} trials done; continue with: {again}", flush=True)


def clock(seconds: float) -> str:
    """Seconds as people read them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
