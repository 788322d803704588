"""A user's own conf folder: what it adds, what it replaces, and who is told."""

import os
import subprocess
import sys

import pytest

import experiments
from experiments.config import conf_files
from experiments.config.checks.check import config_mistakes
from experiments.config.hydra_internals import VERSION_BASE
from experiments.config.installation import CONF, OWN_CONF, as_started, checkout_of, command, install_command
from experiments.errors import UserError


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A conf folder of a user's own, named by the environment."""
    folder = tmp_path / "my conf"
    (folder / "model").mkdir(parents=True)
    monkeypatch.setenv(OWN_CONF, str(folder))
    return folder


def test_files_are_added_and_replaced_and_the_replaced_ones_named_once(own, capsys):
    original = (CONF / "model" / "mlp.yaml").read_text()
    (own / "model" / "wide.yaml").write_text(original.replace("[512, 512]", "[7]"))
    (own / "model" / "mlp.yaml").write_text(original.replace("[512, 512]", "[9]"))
    assert experiments.compose("model=wide")["model"]["net"]["hidden_features"] == [7]
    assert experiments.compose()["model"]["net"]["hidden_features"] == [9]
    assert experiments.compose("optimizer=sgd")["optimizer"]["momentum"] == 0.9
    assert capsys.readouterr().err == f"{own} replaces files of conf: model/mlp.yaml\n"
    assert "wide" in conf_files.choices("model")


def test_a_mistake_in_an_own_file_is_shown_with_its_place(own):
    (own / "optimizer").mkdir()
    (own / "optimizer" / "fast.yaml").write_text("_target_: torch.optim.Adam\n_partial_: true\nlr: -1\n")
    (fault,) = config_mistakes(experiments.compose("optimizer=fast"), ["optimizer=fast"])
    assert fault.endswith(f"({own / 'optimizer' / 'fast.yaml'}:3)")


def test_a_name_that_is_near_an_own_choice_is_suggested(own):
    (own / "model" / "my_network.yaml").write_text("")
    with pytest.raises(UserError, match="Did you mean model=my_network"):
        experiments.compose("model=my_netwrk")


def test_own_groups_and_defaults_are_taken(own):
    (own / "local").mkdir()
    (own / "local" / "default.yaml").write_text("# @package _global_\nseed: 77\n")
    assert experiments.compose()["seed"] == 77


@pytest.mark.parametrize("typed", [["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]])
def test_the_option_is_taken_out_of_the_command_line(typed, tmp_path, monkeypatch):
    monkeypatch.setenv(OWN_CONF, "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    arguments = ["train.py", *typed, "seed=1"]
    conf_files.take_config_dir(arguments)
    assert arguments == ["train.py", "seed=1"]
    assert os.environ[OWN_CONF] == str(tmp_path / "mine")


@pytest.mark.parametrize(
    "typed", [["--config-dir", "nowhere"], ["--config-dir"], ["--config-dir", "mine", "-cd=yours"]]
)
def test_an_option_that_names_no_folder_is_a_mistake(typed, script_here, monkeypatch):
    monkeypatch.setenv(OWN_CONF, "")
    code, _, errors = script_here("train", *typed)
    assert code == 2
    assert errors.startswith("error: --config-dir")


def test_a_folder_beside_the_users_program_is_found_and_the_current_one_is_not(tmp_path):
    (tmp_path / "project" / "conf" / "local").mkdir(parents=True)
    (tmp_path / "project" / "conf" / "local" / "default.yaml").write_text("# @package _global_\nseed: 5\n")
    program = tmp_path / "project" / "program.py"
    program.write_text("import experiments\nprint(experiments.compose()['seed'])\n")
    clean = {key: value for key, value in os.environ.items() if key != OWN_CONF}
    for folder, arguments, seed in (
        (tmp_path, [str(program)], "5"),
        (program.parent, ["-c", program.read_text()], "0"),
    ):
        process = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=clean, capture_output=True, text=True, check=True
        )
        assert process.stdout.strip() == seed


def test_other_programs_of_hydras_are_left_alone(own, tmp_path):
    from hydra import compose, initialize_config_dir

    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "train.yaml").write_text("theirs: 1\n")
    (own / "train.yaml").write_text("ours: 1\n")
    with initialize_config_dir(str(tmp_path / "theirs"), **VERSION_BASE):
        assert dict(compose("train")) == {"theirs": 1}


def test_commands_are_printed_as_the_program_was_started(monkeypatch):
    from tests.conftest import ROOT

    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    assert command("evaluate") == "python scripts/evaluate.py"
    monkeypatch.chdir(ROOT / "scripts")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert command("evaluate") == "python evaluate.py"
    assert install_command("sweep") == 'pip install -e ".[sweep]"'
    monkeypatch.setenv(OWN_CONF, str(ROOT / "scripts" / "my conf"))
    assert command("train") == "python train.py --config-dir 'my conf'"
    assert command("evaluate") == "python evaluate.py"
    monkeypatch.delenv(OWN_CONF)
    monkeypatch.setenv("EXPERIMENTS_STARTED_AS", "python -m experiments")
    assert as_started("try python scripts/train.py -m seed=0,1") == "try python -m experiments train -m seed=0,1"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert command("train") == "uv run python -m experiments train"
    assert install_command("sweep") == "uv sync --inexact --extra sweep"


def test_a_checkout_is_recognised_by_where_the_package_lies(tmp_path):
    from tests.conftest import ROOT

    assert checkout_of(ROOT / "src" / "experiments") == ROOT
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").touch()
    assert checkout_of(tmp_path / "site-packages" / "experiments") is None
    assert checkout_of(tmp_path / "src" / "experiments") == tmp_path
