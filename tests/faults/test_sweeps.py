"""A sweep whose workers, parent, or all of them are killed at random moments; the same command ends it."""

import os
import random
import signal
import time
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from experiments.sweeps.storage import journal_storage
from experiments.sweeps.summary.summarize import study_in
from experiments.sweeps.trials import DIRECTORY_ATTR, LOST_ATTR, RETRY_OF_ATTR, counted
from tests.fork_server import Process, wait_until

pytestmark = pytest.mark.slow
ROUNDS = int(os.environ.get("EXPERIMENTS_SWEEP_KILLS", "3"))  # 10 for a thorough look
TOTAL = 5 * ROUNDS
TARGETS = ("everything", "worker", "parent")
COMMAND = (
    "-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", f"hydra.sweeper.n_trials={TOTAL}",
    "hydra.sweeper.workers=2",
    "optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.net.activation=choice(ReLU,Tanh,ReLU6,nonsense)",
    "model.net.hidden_features=[32]", "trainer.max_epochs=6", "trainer.accelerator=cpu", "logger=none",
    "callbacks=minimal",
)  # fmt: skip


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(*pids: int) -> None:
    for pid in pids:
        if lives(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def sweep(processes, tmp_path):
    """Start the sweep; whatever is left of it at the end is killed."""
    pids = set()

    def start() -> Process:
        process = processes.start(tmp_path, tmp_path / "output.txt", "scripts/train.py", *COMMAND)
        wait_until(lambda: process.poll() is not None or len(children(process.pid)) == 2)
        pids.update([process.pid, *(children(process.pid) if process.poll() is None else [])])
        return process

    yield start
    kill(*pids)


def load(folder: Path) -> optuna.Study:
    journal_storage.cache_clear()
    return study_in(folder)


def at_work(folder: Path) -> set[int]:
    """The trials whose runs have begun, and not ended."""
    if not (folder / "study.journal").exists():
        return set()
    try:
        trials = load(folder).trials
    except KeyError:  # the study is not yet made
        return set()
    return {
        trial.number for trial in trials if trial.state == TrialState.RUNNING and DIRECTORY_ATTR in trial.user_attrs
    }


def hit(process: Process, target: str, folder: Path, chance: random.Random) -> None:
    """Kill a part of a sweep at a random moment after a trial of it has begun, and see the rest of it end."""
    workers = children(process.pid) if process.poll() is None else []
    before = at_work(folder)
    wait_until(lambda: process.poll() is not None or at_work(folder) - before, 120)
    time.sleep(chance.uniform(0, 1.5))
    if target == "worker":
        kill(workers[0])
        time.sleep(chance.uniform(0, 1.5))  # the other one goes on
        kill(process.pid)
    elif target == "parent":
        kill(process.pid)
    else:
        kill(process.pid, *workers)
    process.wait()
    wait_until(lambda: not any(lives(worker) for worker in workers), 60)  # a worker ends with its parent


def test_killed_at_random_moments_the_same_command_ends_it_and_nothing_is_lost_or_doubled(sweep, tmp_path):
    folder, chance = tmp_path / "sweep", random.Random(ROUNDS)
    for number in range(ROUNDS):
        hit(sweep(), TARGETS[number % len(TARGETS)], folder, chance)
    process = sweep()
    assert process.wait(timeout=400) == 0, process.printed()

    study = load(folder)
    done = counted(study)
    assert len(done) == TOTAL
    assert {trial.state.name for trial in done} <= {"COMPLETE", "PRUNED", "FAIL"}
    # one that was killed before it had parameters has none to be run again with: another one is drawn instead
    lost = [trial for trial in study.trials if LOST_ATTR in trial.user_attrs and len(trial.params) == 2]
    retried = [trial.user_attrs[RETRY_OF_ATTR] for trial in study.trials if RETRY_OF_ATTR in trial.user_attrs]
    # what was lost was run again, once, with the same parameters
    assert sorted(retried) == sorted(trial.number for trial in lost)
    for trial in study.trials:
        if RETRY_OF_ATTR in trial.user_attrs:
            assert trial.params == study.trials[trial.user_attrs[RETRY_OF_ATTR]].params
    for trial in done:
        failed = trial.params["model.net.activation"] == "nonsense"
        assert (trial.state == TrialState.FAIL) == failed, trial
        # the directory of each trial is its own, and whole
        overrides = yaml.safe_load((folder / str(trial.number) / "overrides.yaml").read_text())
        assert f"optimizer.lr={trial.params['optimizer.lr']}" in overrides
        summary = yaml.safe_load((folder / str(trial.number) / "summary.json").read_text())
        names = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
        assert summary["status"] == names[trial.state.name]
    assert sum(path.name.isdecimal() for path in folder.iterdir()) <= len(study.trials)
