"""The package as a wheel installs it, with no checkout near: built through the sdist, run from an empty folder."""

import importlib.metadata
import json
import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from experiments.config.installation import CONF
from tests.conftest import ROOT

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.accelerator=cpu")
FOR_CHECKOUTS = {"check", "new_project"} & {path.stem for path in (ROOT / "scripts").glob("*.py")}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, from the sdist, from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> str:
    """An environment that holds the wheel, and sees what is installed here but for the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    found = {str(path): path for path in folder.rglob("site-packages") if not path.is_symlink()}
    packages = next(iter(found.values()))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # the .pth files of folders that a .pth file names are not read, so an editable installation stays out of sight
    elsewhere = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    (packages / "dependencies.pth").write_text("\n".join(elsewhere) + "\n")
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


@pytest.fixture
def installed(python, tmp_path):
    """Run ``python -m experiments *arguments`` or other code in an empty folder; returns what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        ours = ("EXPERIMENTS_", "PYTHONPATH", "UV_")
        clean = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        process = subprocess.run(
            [python, *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300
        )
        assert process.returncode == code, process.stdout + process.stderr
        assert "leaked" not in process.stderr  # what is kept out of garbage collection is let go at the end
        return process.stdout + process.stderr

    return run


def test_it_holds_all_that_is_read_at_run_time_and_nothing_of_a_users(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"experiments/conf/{path.relative_to(CONF).as_posix()}" for path in CONF.rglob("*.yaml")}
    assert {name for name in conf if "/local/" not in name} <= names
    package = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert {name for name in package if "__pycache__" not in name} <= names
    scripts = {f"experiments/scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")}
    assert scripts - names == {f"experiments/scripts/{name}.py" for name in FOR_CHECKOUTS}
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"experiments", "hydra_plugins"}
    assert not [name for name in names if "/local/" in name or "__pycache__" in name]


def test_the_command_is_installed_under_the_name_of_the_package():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="experiments")
    assert entry.load().__module__ == "experiments.__main__"


def test_train_from_python_returns_what_the_summary_says(installed, tmp_path):
    code = (
        "import json, experiments\n"
        f"summary = experiments.train(experiments.compose('optimizer=sgd', 'run_dir=out', *{SHORT!r}))\n"
        "assert summary == json.load(open('out/summary.json'))\n"
        "print(experiments.__file__)"
    )
    output = installed("-c", code)
    assert str(ROOT) not in output
    assert "epoch 1/1" in output  # a notebook shows what a terminal shows
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["status"] == "finished"
    assert (tmp_path / "out" / "report.html").is_file()


ONE_AFTER_THE_OTHER = """
import runpy, sys

for number, command in enumerate(sys.argv[1:]):
    print("----\\n" * bool(number), end="")
    sys.argv = ["", *command.split()]
    try:
        runpy.run_module("experiments", run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        assert not ending.code, command
"""


def test_every_command_works_and_prints_commands_of_its_own_kind(installed, tmp_path):
    usage = installed("-m", "experiments")
    names = [path.stem for path in (ROOT / "scripts").glob("*.py") if path.stem not in FOR_CHECKOUTS]
    assert all(f"\n  {name} " in usage for name in names)
    for name in names:
        help = installed("-m", "experiments", name, "--help")
        assert f"python -m experiments {name}" in help
        assert "scripts/" not in help
    assert "Did you mean train?" in installed("-m", "experiments", "trian", code=2)

    commands = (
        f"train -m seed=0,1 hydra.sweep.dir=grid {' '.join(SHORT)}", "evaluate run=grid/0 accelerator=cpu",
        "export run=grid/0 format=state_dict", "describe", "summarize runs=grid",
    )  # fmt: skip
    outputs = installed("-c", ONE_AFTER_THE_OTHER, *commands).split("----\n")
    trained, evaluated, _, described, summarized = outputs
    assert "look at it again: python -m experiments summarize runs=grid" in trained
    assert "test/accuracy" in evaluated
    assert (tmp_path / "model.pth").is_file()
    assert "669,706" in described
    assert "python -m experiments train" in summarized


def test_a_sweep_starts_its_workers_from_the_wheel(installed, tmp_path):
    output = installed(
        "-m", "experiments", "train", "-m", "sweep=mlp", "hydra.sweeper.n_trials=2", "hydra.sweeper.workers=2",
        "hydra.sweep.dir=sweep", "data.limit=64", "callbacks=minimal", "logger=none", "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
    )  # fmt: skip
    assert "2 of 2" in output
    assert "train and test it: python -m experiments train" in output
    assert str(ROOT) not in output + (tmp_path / "sweep" / "0" / "config.yaml").read_text()


def test_an_own_conf_folder_adds_to_the_wheels(installed, tmp_path):
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    content = "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.001\n"
    (tmp_path / "mine" / "optimizer" / "slow.yaml").write_text(content)
    output = installed("-m", "experiments", "train", "--config-dir", "mine", "optimizer=slow", "--cfg", "job")
    assert "torch.optim.SGD" in output
