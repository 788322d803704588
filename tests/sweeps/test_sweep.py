"""Sweeps as they run, in this process; whole processes are in test_processes.py and tests/faults."""

import json
import shlex

import pytest

import experiments
from experiments.config.installation import CONF, command
from experiments.sweeps import workers
from experiments.sweeps.display import clock
from experiments.sweeps.multirun import Mistake, NothingFinished
from experiments.sweeps.summary.summarize import study_in
from experiments.sweeps.trials import DIRECTORY_ATTR, ERROR_ATTR
from experiments.training.run import train
from tests.sweeps.conftest import LR, SHORT, SMALL, numbers, statuses

OPTUNA = "hydra/sweeper=optuna"
SPACES = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))
SAMPLERS = sorted(path.stem for path in (CONF / "hydra" / "sweeper" / "sampler").glob("*.yaml"))
PRUNERS = sorted(path.stem for path in (CONF / "hydra" / "sweeper" / "pruner").glob("*.yaml"))


def test_trials_finish_fail_and_are_pruned_and_the_same_command_starts_nothing_new(multirun, capsys):
    command = ("many", OPTUNA, "hydra.sweeper.n_trials=16", LR, "model.net.activation=ReLU,Tanh,nonsense", *SMALL)
    folder = multirun(*command)
    trials = study_in(folder).trials
    assert len(trials) == 16
    states = [trial.state.name for trial in trials]
    for state, status in {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}.items():
        assert states.count(state) == statuses(folder).count(status) > 0, status
    for trial in trials:
        summary = json.loads((folder / str(trial.number) / "summary.json").read_text())
        assert trial.user_attrs[DIRECTORY_ATTR] == str(folder / str(trial.number))
        assert not [name for name in summary if name.startswith("test/")]  # the test split is never seen
        if trial.state.name == "FAIL":
            assert trial.params["model.net.activation"] == "nonsense"
            assert "model.net.activation=nonsense: it is not one of" in trial.user_attrs[ERROR_ATTR]
            assert "Traceback" in (folder / str(trial.number) / "error.txt").read_text()
            continue
        best = max(trial.intermediate_values.values())
        assert summary["val/accuracy"] == pytest.approx(best)
        if trial.state.name == "PRUNED":  # what is pruned costs only what it ran
            assert 3 <= summary["epochs"] == len(trial.intermediate_values) < 4
        else:
            assert trial.value == pytest.approx(best)
            assert summary["epochs"] == 4
    printed = capsys.readouterr().out.splitlines()
    last = next(line for line in reversed(printed) if line.startswith("trial "))
    assert f"(16 of 16, {states.count('PRUNED')} pruned, {states.count('FAIL')} failed, best" in last
    assert multirun(*command) == folder
    assert len(study_in(folder).trials) == 16
    assert "16 of 16 trials are done" in capsys.readouterr().out


def test_the_last_lines_say_what_is_best_and_the_command_makes_it_again_and_tests(multirun, capsys, tmp_path):
    folder = multirun("sweep", OPTUNA, "hydra.sweeper.n_trials=3", LR, "model.net.dropout=interval(0,0.5)", *SMALL)
    study = study_in(folder)
    lines = capsys.readouterr().out.splitlines()
    assert f"best val/accuracy: {study.best_value:.6g} by trial {study.best_trial.number}" in lines
    for name, value in study.best_params.items():
        assert f"  {name}={value}" in lines
    assert f"look at all of them: {command('summarize')} runs=sweep" in lines
    assert any(line.endswith("optuna-dashboard sweep/study.journal") for line in lines)
    (again,) = [line.removeprefix("train and test it: ") for line in lines if line.startswith("train and test it: ")]
    overrides = shlex.split(again)[2:]
    summary = train(experiments.compose(*overrides, f"run_dir={tmp_path / 'again'}"), overrides)
    assert summary["val/accuracy"] == pytest.approx(study.best_value)
    assert 0 <= summary["test/accuracy"] <= 1


def test_a_smaller_loss_can_be_the_aim(multirun):
    folder = multirun(
        "loss", OPTUNA, "hydra.sweeper.n_trials=4", "hydra.sweeper.metric=val/loss",
        "hydra.sweeper.direction=minimize", LR, *SMALL,
    )  # fmt: skip
    study = study_in(folder)
    for trial in study.trials:
        assert trial.value == min(trial.intermediate_values.values())
    assert study.best_value == min(trial.value for trial in study.trials)


def test_more_trials_go_on_where_the_last_ones_ended(multirun):
    for total in (2, 3):
        folder = multirun("more", OPTUNA, f"hydra.sweeper.n_trials={total}", LR, *SMALL)
        assert numbers(folder) == list(range(total))
    values = [trial.params["optimizer.lr"] for trial in study_in(folder).trials]
    assert len(set(values)) == 3


@pytest.mark.parametrize("name", SPACES)
def test_every_search_space_runs(multirun, name):
    assert "mlp" in SPACES
    folder = multirun("space", f"sweep={name}", "hydra.sweeper.n_trials=1", *SHORT, "trainer.max_epochs=1")
    assert statuses(folder) == ["finished"]
    (trial,) = study_in(folder).trials
    assert len(trial.params) > 3
    assert trial.state.name == "COMPLETE"


def test_every_sampler_and_pruner_has_its_test():
    assert len(SAMPLERS) > 4
    assert len(PRUNERS) > 4


@pytest.mark.parametrize(("sampler", "pruner"), list(zip(SAMPLERS, PRUNERS + PRUNERS, strict=False)))
def test_every_sampler_and_every_pruner_runs(multirun, sampler, pruner):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    second = "optimizer.lr=0.01,0.02" if sampler == "grid" else LR
    folder = multirun(
        sampler, OPTUNA, f"hydra/sweeper/sampler={sampler}", f"hydra/sweeper/pruner={pruner}",
        f"hydra.sweeper.n_trials={5 if sampler == 'grid' else 2}", second, "model.net.dropout=range(0.0,0.4,0.2)", *SMALL,
    )  # fmt: skip
    points = [tuple(trial.params.values()) for trial in study_in(folder).trials]
    assert len(set(points)) == len(points) == (4 if sampler == "grid" else 2)
    states = [trial.state.name for trial in study_in(folder).trials]
    assert set(states) <= {"COMPLETE", "PRUNED"}
    assert states.count("PRUNED") == 0 or pruner != "none"


def test_the_same_seed_tries_the_same_points_however_often_the_sweep_is_started(multirun):
    random = (OPTUNA, "hydra/sweeper/sampler=random", LR, *SMALL, "trainer.max_epochs=1")
    once = study_in(multirun("once", *random, "hydra.sweeper.n_trials=3")).trials
    for total in (1, 3):
        folder = multirun("thrice", *random, f"hydra.sweeper.n_trials={total}")
    assert [trial.params for trial in study_in(folder).trials] == [trial.params for trial in once]
    assert len({trial.params["optimizer.lr"] for trial in once}) == 3


MISTAKES = {
    "nothing to search": ["model=mlp"],
    "hydra.sweeper.n_trials=0 must be": ["hydra.sweeper.n_trials=0", LR],
    "hydra.sweeper.foo is a key that nothing reads": ["+hydra.sweeper.foo=3", LR],
    "hydra.sweeper.workers=0 must be": ["hydra.sweeper.workers=0", LR],
    "metric=val/loss with .* the worst: add hydra.sweeper.direction=minimize": ["hydra.sweeper.metric=val/loss", LR],
    "direction=up must be maximize or minimize": ["hydra.sweeper.direction=up", LR],
    "metric=test/accuracy must be a val/ metric": ["hydra.sweeper.metric=test/accuracy", LR],
    "metric=val/f2: it is not logged. There are train/loss": ["hydra.sweeper.metric=val/f2", LR],
    "optimizer.betas=.*: it must be a list, and is text": ['optimizer.betas=choice("[0.9,0.99]","[0.8,0.9]")'],
    "data.batch_size=0: it must be a whole number": ["data.batch_size=0,32"],
    "test= is not for sweeps": ["test=true", LR],
    "Could not find 'model/mpl'": ["model=mlp,mpl"],
    "Could not override 'optimizer.lrr'": ["optimizer.lrr=1,2"],
    "has no grid": ["hydra/sweeper/sampler=grid", LR],
    "TPESampler refuses its arguments": ["+hydra.sweeper.sampler.nonsense=1", LR],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_in_the_command_ends_it_before_a_trial_is_asked(multirun, tmp_path, words):
    with pytest.raises(Mistake, match=words):
        multirun("mistake", OPTUNA, *MISTAKES[words], *SMALL)
    assert not [path for path in tmp_path.glob("mistake/*") if path.is_dir()]


def test_first_points_leave_no_choice_out(multirun):
    choices = "model.net.norm=none,layer,batch"
    folder = multirun("spread", OPTUNA, "hydra.sweeper.n_trials=4", choices, LR, *SMALL, "trainer.max_epochs=1")
    drawn = [trial.params["model.net.norm"] for trial in study_in(folder).trials]
    assert min(drawn.count(choice) for choice in ("none", "layer", "batch")) >= 1
    assert len({trial.params["optimizer.lr"] for trial in study_in(folder).trials}) == 4


def test_a_run_of_several_processes_is_refused_inside_a_multirun(multirun):
    with pytest.raises(NothingFinished, match="a run of 2 processes cannot be a job of a multirun"):
        multirun("ddp", OPTUNA, "hydra.sweeper.n_trials=1", "trainer=ddp", "trainer.devices=2", LR, *SMALL)


def test_time_left_is_readable():
    assert [clock(seconds) for seconds in (5, 65, 3665)] == ["0:05", "1:05", "1:01:05"]


def test_workers_share_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    shares = [workers.share(index, 3) for index in range(3)]
    assert [one["OMP_NUM_THREADS"] for one in shares] == ["2"] * 3
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shares] == ["3", "5", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "CUDA_VISIBLE_DEVICES" not in workers.share(0, 2)  # all of them have the one there is
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert workers.share(0, 2)["OMP_NUM_THREADS"] == "5"
