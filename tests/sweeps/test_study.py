"""The study's storage among processes that die: real files, real kills."""

import os
import random
import signal
import sys

import pytest
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState

from experiments.callbacks import Pruning
from experiments.errors import UserError
from experiments.sweeps import study as studies
from experiments.sweeps import trials
from experiments.sweeps.job import TRIAL, Job
from experiments.sweeps.study import SharedStudy
from experiments.sweeps.trials import DIRECTORY_ATTR, LOST_ATTR, RETRY_OF_ATTR, counted

SPACE = {"x": FloatDistribution(0, 1)}
forks = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with threads")


@pytest.fixture
def shared(tmp_path):
    return SharedStudy(tmp_path / "study.journal", "maximize", "val/accuracy", SPACE, ["loss=margin"], MedianPruner())


def test_other_ranks_of_a_trial_hear_from_the_first_whether_it_is_pruned(shared, tmp_path, monkeypatch):
    """Lightning's broadcast waits for all ranks, so that each must have the callback that asks for it."""
    directory = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(tmp_path)}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", directory)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setenv(TRIAL, "0")
    seen = []
    assert Job(lambda _, callbacks: seen.extend(callbacks), shared)({}).error is None
    (pruning,) = seen
    assert isinstance(pruning, Pruning)
    assert pruning.metric == "val/accuracy"


def in_child(function) -> int:
    """Call in a forked process; its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_ask_and_tell_until_the_total(shared):
    study = shared.open_study(RandomSampler(seed=0))
    values = []
    while (trial := shared.ask(study, 5)) is not None:
        study.tell(trial, trial.params["x"])
        values.append(trial.params["x"])
    assert len(set(values)) == 5
    assert trials.best(study).value == max(values)
    assert shared.ask(study, 5) is None
    again = shared.ask(study, 6)
    assert again.number == 5


@forks
def test_the_trial_of_a_killed_process_is_run_again_and_counts_once(shared):
    def ask_and_die():
        shared.ask(shared.open_study(RandomSampler(seed=1)), 3)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(ask_and_die) == -signal.SIGKILL
    study = shared.open_study(RandomSampler(seed=0))
    assert len(counted(study)) == 1
    x = study.trials[0].params["x"]
    again = shared.ask(study, 3)
    assert (again.number, again.params["x"]) == (1, x)
    first, second = study.trials
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.RUNNING)
    assert LOST_ATTR in first.user_attrs
    assert second.user_attrs[RETRY_OF_ATTR] == 0
    assert len(counted(study)) == 1
    # this process lives: nobody takes its trial
    assert in_child(lambda: shared.requeue_lost(shared.open_study()) and os._exit(3)) == 0
    study.tell(again, 0.5)
    done = 1
    while (trial := shared.ask(study, 3)) is not None:
        study.tell(trial, 0.1)
        done += 1
    assert done == len(counted(study)) == 3


def test_what_is_given_back_is_asked_for_next(shared):
    study = shared.open_study(RandomSampler(seed=0))
    trial = shared.ask(study, 2)
    shared.requeue(study, trial.number)
    shared.requeue(study, trial.number)
    assert counted(study) == []
    assert shared.ask(study, 2).params == trial.params
    assert shared.claim(study, trial.number) is None
    assert shared.claim(study, trial.number + 1) is not None


@forks
def test_a_process_that_dies_before_its_trial_began_is_not_held_against_it(shared, monkeypatch):
    monkeypatch.setattr(studies, "MAX_DEATHS", 2)

    def ask_and_die(begin):
        study = shared.open_study(RandomSampler(seed=1))
        trial = shared.ask(study, 1)
        if begin:
            trial.set_user_attr(DIRECTORY_ATTR, "somewhere")
        os.kill(os.getpid(), signal.SIGKILL)

    for begin in (False, False, False, True):
        in_child(lambda begin=begin: ask_and_die(begin))
    study = shared.open_study(RandomSampler(seed=1))
    trial = shared.ask(study, 1)
    assert trial is not None
    assert len({str(one.params) for one in study.trials}) == 1
    trial.set_user_attr(DIRECTORY_ATTR, "somewhere")
    assert trials.counted(study)[0].user_attrs["deaths"] == 1


def test_a_trial_that_kills_its_process_time_and_again_fails(shared, monkeypatch):
    monkeypatch.setattr(studies, "MAX_DEATHS", 3)
    study = shared.open_study(RandomSampler(seed=0))
    for death in range(3):
        trial = shared.ask(study, 1)
        shared._requeue(study, study.trials[trial.number], death + 1)
    assert shared.ask(study, 1) is None
    (failed,) = counted(study)
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["error"] == "its process died 3 times"


@forks
@pytest.mark.parametrize("seed", range(3))
def test_a_journal_whose_writer_was_killed_goes_on(tmp_path, seed):
    """Kill a process that writes as fast as it can, holding the lock most of the time."""
    shared = SharedStudy(tmp_path / "study.journal", "maximize", "val/accuracy", SPACE, [])
    shared.open_study()
    child = os.fork()
    if child == 0:
        study = shared.open_study(RandomSampler(seed=seed))
        while True:
            study.tell(shared.ask(study, 10_000), 0.5)
    import time

    time.sleep(random.Random(seed).uniform(0.2, 0.4))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(shared.journal, "ab") as file:
        file.write(b'{"op_code": 5, "half a li')
    study = shared.open_study(RandomSampler(seed=9))
    done = len(counted(study))
    assert done > 5
    trial = shared.ask(study, done + 1)
    study.tell(trial, 0.7)
    states = {trial.state for trial in counted(study)}
    assert states == {TrialState.COMPLETE}
    studies.journal_storage.cache_clear()
    assert len(counted(shared.open_study())) in (done, done + 1)


def test_another_sweep_is_refused_with_what_differs(shared):
    shared.open_study()
    other = SharedStudy(
        shared.journal, "minimize", "val/loss", {"x": FloatDistribution(0, 2), "y": SPACE["x"]}, ["loss=focal"]
    )
    with pytest.raises(UserError, match="another hydra.sweep.dir") as refusal:
        other.open_study()
    for words in ("x: FloatDistribution(high=1.0", "y: nothing -> Float", "val/accuracy -> val/loss", "loss=focal"):
        assert words in str(refusal.value), words
    elsewhere = SharedStudy(shared.journal, *("maximize", "val/accuracy"), SPACE, ["loss=margin", "data.root=b"])
    elsewhere.open_study()  # files may lie elsewhere on another machine


def test_a_journal_that_cannot_be_opened_is_named(shared):
    shared.journal.write_text("no journal\n")
    with pytest.raises(UserError, match=r"study\.journal cannot be opened"):
        shared.open_study()


def test_tpe_learns_from_failures(tmp_path):
    """Optuna alone fails 38 of the last 40 trials here: it takes the choice that always fails for untried."""
    choices = SPACE | {"c": CategoricalDistribution(["good", "fair", "fails"])}
    shared = SharedStudy(tmp_path / "study.journal", "maximize", "val/accuracy", choices, [])
    study = shared.open_study()
    while (trial := shared.ask(study, 60, lambda number: TPESampler(seed=number))) is not None:
        if trial.params["c"] == "fails":
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, trial.params["x"] + (trial.params["c"] == "good"))
    failed = [trial.number for trial in study.trials if trial.state == TrialState.FAIL]
    assert failed  # they are failed trials all the same
    assert len([number for number in failed if number >= 20]) <= 8
