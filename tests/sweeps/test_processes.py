"""Sweeps of several processes, as users start them."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from experiments.config.requirements import installed
from experiments.sweeps.summary.summarize import study_in
from experiments.sweeps.trials import counted
from tests.conftest import ROOT
from tests.sweeps.conftest import LR, SMALL, numbers, statuses

pytestmark = pytest.mark.slow
COMMAND = ("-m", "hydra/sweeper=optuna", LR, "model.net.activation=ReLU,nonsense", *SMALL)


def _hear_ctrl_c() -> None:
    """What a shell puts into the background, such as these tests, does not, and neither do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(tmp_path):
    """Start ``scripts/train.py *arguments``; what still runs at the end is ended, with its workers."""
    started = []

    def run(*arguments: str) -> subprocess.Popen:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("EXPERIMENTS_")}
        started.append(
            subprocess.Popen(
                [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments],
                cwd=tmp_path,
                env=clean,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=_hear_ctrl_c if os.name == "posix" else None,
            )
        )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def trials(journal):
    return counted(study_in(journal.parent))


def test_two_parents_on_one_study_make_the_total_together(start, tmp_path):
    command = (*COMMAND, "hydra.sweeper.n_trials=8", "hydra.sweep.dir=both")
    processes = [start(*command), start(*command)]
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
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
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
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
    for line in process.stdout:
        if line.startswith("trial "):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130, printed
    assert "continue with: python " in printed
    assert "hydra.sweep.dir=" in printed.partition("continue with:")[2]
    journal = tmp_path / "stopped" / "study.journal"
    assert not [trial for trial in trials(journal) if trial.state.name == "RUNNING"]
    process = start(*[one for one in command if one != "callbacks.rolling_checkpoint=null"])
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert len(trials(journal)) == 4


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_a_launcher_runs_a_sweep(start, tmp_path, launcher):
    if not installed(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher"):
        pytest.skip(f"hydra/launcher={launcher} is not installed")
    process = start(
        *COMMAND, f"hydra/launcher={launcher}", "hydra.sweeper.n_trials=3", "hydra.sweeper.workers=2",
        "hydra.sweep.dir=jobs",
    )  # fmt: skip
    printed, _ = process.communicate(timeout=500)
    assert process.returncode == 0, printed
    done = trials(tmp_path / "jobs" / "study.journal")
    assert [trial.number for trial in done] == numbers(tmp_path / "jobs") == list(range(3))
    found = sorted(trial.state.name for trial in done)
    names = {"finished": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    assert sorted(names[status] for status in statuses(tmp_path / "jobs")) == found
    overrides = (tmp_path / "jobs" / "2" / "overrides.yaml").read_text()
    assert f"optimizer.lr={done[2].params['optimizer.lr']}" in overrides


def test_a_launcher_runs_a_grid_with_a_job_that_fails(start, tmp_path):
    if not installed("hydra_plugins.hydra_joblib_launcher"):
        pytest.skip("hydra/launcher=joblib is not installed")
    process = start(
        "-m",
        "hydra/launcher=joblib",
        "optimizer=nadam",
        "+optimizer.momentum_decay=-1,0.01",
        "hydra.sweep.dir=grid",
        *SMALL,
    )
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 2, printed
    assert "1 of 2 runs failed" in printed
    assert json.loads((tmp_path / "grid" / "1" / "summary.json").read_text())["status"] == "finished"
    assert "Traceback" in (tmp_path / "grid" / "0" / "error.txt").read_text()


def test_a_grid_that_is_stopped_names_the_command_that_goes_on_with_it(start, tmp_path):
    command = ("-m", "seed=1,2", "data.limit=400", "logger=none", "callbacks=minimal", "hydra.sweep.dir='a, b'")
    process = start(*command)
    for line in process.stdout:
        if line.startswith("epoch 3/"):
            process.send_signal(signal.SIGINT)
            break
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130, printed
    again = printed.partition("stopped; what is done is left out by: ")[2].splitlines()[0]
    process = start(*shlex.split(again)[2:])
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    states = [json.loads(path.read_text()) for path in sorted((tmp_path / "a, b").glob("*/summary.json"))]
    assert [state["status"] for state in states] == ["finished", "finished"]
