import json
import subprocess
import sys

import pytest
import torch

import experiments
from experiments.errors import UserError
from experiments.runs.environment import git_state
from experiments.runs.run_directory import best_checkpoint, read_config, read_summary
from experiments.runs.run_record import record_start, record_summary
from experiments.training.run import train
from tests.conftest import ROOT


def test_what_starts_and_finishes_can_be_read_back(tmp_path):
    config = {"seed": 0, "data": {"_target_": "experiments.data.Digits"}}
    record_start(tmp_path / "run", config, ["seed=0"], ROOT)
    assert read_config(tmp_path / "run") == config
    assert read_summary(tmp_path / "run") is None
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["versions"]["torch"]
    assert environment["command"]
    record_summary(tmp_path / "run", {"status": "finished"})
    assert read_summary(tmp_path / "run") == {"status": "finished"}


@pytest.mark.parametrize(("precision", "told"), [("bf16-mixed", True), ("32-true", False)])
def test_a_processor_that_only_imitates_bf16_is_told_of(tmp_path, monkeypatch, caplog, precision, told):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    short = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu", "test=false")
    quiet = (
        "model.net.hidden_features=[16]",
        "callbacks=minimal",
        "callbacks.progress=null",
        "logger=none",
        f"trainer.precision={precision}",
    )
    train(experiments.compose(*short, *quiet, f"run_dir={tmp_path}"))
    assert ("trainer.precision=32-true is faster" in caplog.text) == told


def test_git_state_names_commit_and_changes(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    assert git_state(tmp_path) == (None, "")
    git("init")
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    state, diff = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert (state["changed"], diff) == ([], "")
    (tmp_path / "code.py").write_text("a = 2\n")
    state, diff = git_state(tmp_path)
    assert state["changed"] == [" M code.py"]
    assert "+a = 2" in diff


@pytest.mark.parametrize("text", [":", "- a list", "\x00", "!!python/object/apply:os.system [touch harmed]"])
def test_a_damaged_config_is_named(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml"):
        read_config(tmp_path)
    assert not list(tmp_path.glob("harmed"))


def test_a_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(UserError, match="is no run directory"):
        read_config(tmp_path)


def test_a_summary_cannot_name_a_checkpoint_outside_its_run(tmp_path):
    (tmp_path / "outside.ckpt").touch()
    run = tmp_path / "run"
    run.mkdir()
    record_summary(run, {"best_checkpoint": "../outside.ckpt"})
    with pytest.raises(UserError, match="outside its run"):
        best_checkpoint(run)


def test_ids_differ_between_processes_and_are_inherited_by_ranks_alone():
    code = "from experiments.config.resolvers import run_id; print(run_id())"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ids = [process.communicate()[0].strip() for process in started]
    assert len(set(ids)) == 3
    parent = (
        "import os, subprocess, sys; from experiments.config.resolvers import run_id; print(run_id(), run_id())\n"
        f"child = [sys.executable, '-c', {code!r}]\n"
        "subprocess.run(child)\n"
        "subprocess.run(child, env={**os.environ, 'LOCAL_RANK': '1'})"
    )
    printed = subprocess.run(
        [sys.executable, "-uc", parent], capture_output=True, text=True, check=True
    ).stdout.split()
    own, again, child, rank = printed
    assert own == again == rank != child


def test_every_composed_config_is_another_runs():
    assert experiments.compose()["run_dir"] != experiments.compose()["run_dir"]


def test_no_new_run_starts_where_another_one_lies(tmp_path):
    record_start(tmp_path, {"seed": 0}, [], ROOT)
    with pytest.raises(UserError, match="holds a run: continue it with resume="):
        record_start(tmp_path, {"seed": 1}, [], ROOT)
    record_summary(tmp_path, {"status": "failed"})
    record_start(tmp_path, {"seed": 1}, [], ROOT)  # nothing of a run that failed at its start is lost
    assert read_config(tmp_path) == {"seed": 1}
    assert read_summary(tmp_path) is None
