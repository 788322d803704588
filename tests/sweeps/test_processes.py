"""Sweeps of several processes, as users start them."""

import json
import shlex
import signal
import sys
import time

import pytest

from experiments.config.requirements import installed
from experiments.sweeps.summary.summarize import study_in
from experiments.sweeps.trials import counted
from tests.fork_server import Process
from tests.sweeps.conftest import LR, SMALL, numbers, statuses

pytestmark = pytest.mark.slow
COMMAND = ("-m", "hydra/sweeper=optuna", LR, "model.net.activation=ReLU,nonsense", *SMALL)


@pytest.fixture
def start(processes, tmp_path):
    """Start ``scripts/train.py *arguments``; what still runs at the end is ended, with its workers."""
    started = []

    def run(*arguments: str) -> Process:
        output = tmp_path / f"output-{len(started)}.txt"
        started.append(processes.start(tmp_path, output, "scripts/train.py", *arguments))
        return started[-1]

    yield run
    for process in started:
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        process.wait()


def trials(journal):
    return counted(study_in(journal.parent))


def test_two_parents_on_one_study_make_the_total_together(start, tmp_path):
    command = (*COMMAND, "hydra.sweeper.n_trials=8", "hydra.sweep.dir=both")
    processes = [start(*command), start(*command)]
    codes = [process.wait() for process in processes]
    printed = [process.printed() for process in processes]
    assert codes == [0, 0], printed
    done = trials(tmp_path / "both" / "study.journal")
    assert len(done) == 8
    assert {trial.state.name for trial in done} <= {"COMPLETE", "PRUNED", "FAIL"}
    assert numbers(tmp_path / "both") == sorted(trial.number for trial in done)
    for process_output in printed:
        assert "(8 of 8" in process_output
    owners = {trial.user_attrs["owner"] for trial in done}
    assert 1 <= len(owners) <= 2


def test_workers_share_a_study_and_the_parent_shows_it(start, tmp_path):
    process = start(*COMMAND, "hydra.sweeper.n_trials=8", "hydra.sweeper.workers=2", "hydra.sweep.dir=two")
    assert process.wait() == 0, process.printed()
    printed = process.printed()
    lines = [line for line in printed.splitlines() if line.startswith("trial ")]
    assert len(lines) == 8
    assert lines[-1].partition("(")[2].startswith("8 of 8")
    assert "train and test it: python " in printed
    assert len({trial.user_attrs["owner"] for trial in trials(tmp_path / "two" / "study.journal")}) == 2
    assert len(list((tmp_path / "two" / "workers").glob("*.log"))) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(start, tmp_path, workers):
    command = (
        *COMMAND, "hydra.sweeper.n_trials=4", f"hydra.sweeper.workers={workers}", "hydra.sweep.dir=stopped",
        "callbacks=minimal", "trainer.max_epochs=12", "trainer.limit_train_batches=1.0",
    )  # fmt: skip
    process = start(*[one for one in command if one != "callbacks.rolling_checkpoint=null"])
    process.wait_for("\ntrial ")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130, process.printed()
    printed = process.printed()
    assert "continue with: python " in printed
    assert "hydra.sweep.dir=" in printed.partition("continue with:")[2]
    journal = tmp_path / "stopped" / "study.journal"
    assert not [trial for trial in trials(journal) if trial.state.name == "RUNNING"]
    process = start(*[one for one in command if one != "callbacks.rolling_checkpoint=null"])
    assert process.wait() == 0, process.printed()
    assert len(trials(journal)) == 4


@pytest.fixture
def launch(start, script_here, tmp_path, monkeypatch):
    """Run a command with a launcher; returns its exit code and what it printed."""

    def run(launcher: str, *arguments: str) -> tuple[int, str]:
        if not installed(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher"):
            pytest.skip(f"hydra/launcher={launcher} is not installed")
        arguments = ("-m", f"hydra/launcher={launcher}", *arguments)
        if launcher != "joblib":
            process = start(*arguments)
            return process.wait(500), process.printed()
        monkeypatch.chdir(tmp_path)
        code, output, errors = script_here("train", *arguments)  # whose workers stay for the next command
        return code, output + errors

    return run


@pytest.fixture(scope="module", autouse=True)
def _joblib_ends():
    yield
    if loky := sys.modules.get("joblib.externals.loky"):
        loky.get_reusable_executor().shutdown(kill_workers=True)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_a_launcher_runs_a_sweep_and_a_grid_with_a_job_that_fails(launch, tmp_path, launcher):
    code, printed = launch(
        launcher, *COMMAND[1:], "hydra.sweeper.n_trials=3", "hydra.sweeper.workers=2", "hydra.sweep.dir=jobs"
    )
    assert code == 0, printed
    done = trials(tmp_path / "jobs" / "study.journal")
    assert [trial.number for trial in done] == numbers(tmp_path / "jobs") == list(range(3))
    found = sorted(trial.state.name for trial in done)
    names = {"finished": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    assert sorted(names[status] for status in statuses(tmp_path / "jobs")) == found
    overrides = (tmp_path / "jobs" / "2" / "overrides.yaml").read_text()
    assert f"optimizer.lr={done[2].params['optimizer.lr']}" in overrides

    failing = ("optimizer=nadam", "+optimizer.momentum_decay=-1,0.01")
    code, printed = launch(launcher, *failing, "hydra.sweep.dir=grid", *SMALL)
    assert code == 2, printed
    assert "1 of 2 runs failed" in printed
    assert json.loads((tmp_path / "grid" / "1" / "summary.json").read_text())["status"] == "finished"
    assert "Traceback" in (tmp_path / "grid" / "0" / "error.txt").read_text()


def test_a_grid_that_is_stopped_names_the_command_that_goes_on_with_it(start, tmp_path):
    command = ("-m", "seed=1,2", "data.limit=400", "logger=none", "callbacks=minimal", "hydra.sweep.dir='a, b'")
    process = start(*command)
    process.wait_for("\nepoch 3/")
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130, process.printed()
    again = process.printed().partition("stopped; what is done is left out by: ")[2].splitlines()[0]
    process = start(*shlex.split(again)[2:])
    assert process.wait() == 0, process.printed()
    states = [json.loads(path.read_text()) for path in sorted((tmp_path / "a, b").glob("*/summary.json"))]
    assert [state["status"] for state in states] == ["finished", "finished"]
