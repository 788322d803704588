"""What is not installed is named, with the command that installs it: in an environment that truly lacks it."""

import importlib.util
import sys

import pytest

from experiments.config import requirements

OPTUNA = ["-m", "hydra/sweeper=optuna", "optimizer.lr=0.1,0.2"]


@pytest.fixture
def lacking(monkeypatch):
    """Hide a module from the import system, as if it were not installed."""

    def hide(name):
        whole = importlib.util.find_spec
        monkeypatch.setattr(requirements, "find_spec", lambda module: None if module == name else whole(module))

    return hide


@pytest.mark.parametrize("arguments", [OPTUNA, ["-m", "sweep=mlp"]])
def test_without_optuna_one_message_says_what_to_install(lacking, script_here, arguments):
    lacking("optuna")
    code, out, errors = script_here("train", *arguments)
    assert code == 2
    assert errors == 'error: sweeps need Optuna 5, and there is no optuna: pip install -e ".[sweep]"\n'
    assert out == ""


@pytest.mark.parametrize(
    ("launcher", "extra"),
    [("joblib", "joblib"), ("submitit_local", "submitit"), ("submitit_slurm", "submitit"), ("ray", "ray")],
)
def test_without_its_package_a_launcher_is_named(lacking, launcher, extra):
    lacking(f"hydra_plugins.hydra_{extra}_launcher")
    message = requirements.missing_extra(["-m", f"hydra/launcher={launcher}", "seed=0,1"])
    assert message == f'hydra/launcher={launcher}: it needs a package more. Type pip install -e ".[{extra}]"'


def test_the_stock_plugin_beside_ours_is_to_be_removed(tmp_path, monkeypatch):
    folder = tmp_path / "hydra_plugins" / "hydra_optuna_sweeper"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert requirements.missing_extra(OPTUNA).endswith("pip uninstall hydra-optuna-sweeper")


def test_another_optuna_is_named_by_its_version(monkeypatch):
    monkeypatch.setattr(requirements.metadata, "version", lambda name: "4.2.1")
    assert "optuna 4.2.1 is installed" in requirements.missing_extra(OPTUNA)


def test_grids_and_single_runs_need_nothing_more(lacking):
    lacking("optuna")
    for arguments in (["-m", "seed=0,1"], ["optimizer=sgd"], ["-m", "sweep=null"], ["hydra/launcher=basic"]):
        assert requirements.missing_extra(arguments) is None


def test_without_gradio_the_demo_says_what_to_install(lacking, script_here):
    lacking("gradio")
    message = 'error: the demo needs Gradio 6, and there is no gradio: pip install -e ".[demo]"\n'
    assert script_here("demo", "run=runs/any") == (2, "", message)
