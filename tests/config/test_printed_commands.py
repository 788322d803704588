"""What is printed to be typed is taken when it is typed, whatever the folders are called."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from experiments.config.installation import command, typed_override
from experiments.config.overrides import as_meant
from experiments.config.plain_values import given_values

NAMES = [
    "plain",
    "it's (a) run, #1 = ü",
    "[list]",
    '{"a": 1}',
    "a,b",
    "back\\slash",
    "${x}",
    "two  x",
    "~",
    "null",
    "007",
]
FAST = ("trainer.max_epochs=1", "data.limit=100", "trainer.accelerator=cpu", "callbacks=minimal", "logger=none",
        "model.net.hidden_features=[16]")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_path_passes_the_shells_grammar_and_hydras(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, Path("below") / name):
        (typed,) = shlex.split(typed_override("resume", path))
        (found,) = given_values(as_meant([typed])).values()
        assert Path(found).absolute() == path.absolute()


def commands(text):
    """The commands in what was printed, each with the name of its script."""
    return [(name, shlex.split(rest)) for name, rest in re.findall(r"python \S*?(\w+)\.py (.*)", text)]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "it's (a) run, #1 = ü"


def test_what_a_run_prints(elsewhere, script_here):
    where = shlex.split(typed_override("hydra.run.dir", elsewhere))
    assert script_here("train", *FAST, *where, "test=false")[0] == 0
    again = shlex.split(typed_override("resume", elsewhere))
    code, output, errors = script_here("train", *again, "test=true")
    assert code == 0
    ((name, arguments),) = commands(output + errors)
    code, output, _ = script_here(name, *arguments, "accelerator=cpu")
    assert (name, code) == ("evaluate", 0)
    assert output.startswith("test/")


@pytest.mark.parametrize("sweep", [["seed=1,2"], ["sweep=mlp", "hydra.sweeper.n_trials=1"]], ids=["grid", "study"])
def test_what_many_runs_print(elsewhere, script_here, sweep):
    if sweep[0].startswith("sweep"):
        pytest.importorskip("optuna")
    where = shlex.split(typed_override("hydra.sweep.dir", elsewhere))
    code, output, _ = script_here("train", "-m", *FAST, *sweep, *where)
    assert code == 0
    printed = commands(output)
    assert {name for name, _ in printed} >= {"summarize"}
    for name, arguments in printed:
        code, output, errors = script_here(name, *arguments)
        assert code == 0, errors
        assert "finished" in output or name == "train"


def test_a_tilde_is_the_home_folder_and_never_a_folder_of_that_name(tmp_path, monkeypatch, script_here):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    assert script_here("train", *FAST, "hydra.run.dir=~/run")[0] == 0
    assert script_here("evaluate", "run=~/run", "accelerator=cpu")[0] == 0
    assert script_here("train", "resume=~/run")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert (tmp_path / "home" / "run" / "summary.json").exists()


def test_commands_begin_with_the_python_that_runs(tmp_path, monkeypatch):
    assert command("train").startswith("python ")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shlex.split(command("train"))[0] == sys.executable
