"""A multirun composes from the conf files that it began with, whatever becomes of them."""

import shutil

import pytest

from experiments.config import conf_files, installation
from experiments.runs.run_directory import read_config
from tests.sweeps.conftest import SHORT

SEARCH = ("-m", "hydra/sweeper=optuna", "optimizer.lr=tag(log,interval(1e-4,1e-1))", *SHORT, "trainer.max_epochs=1")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A conf folder of one's own, whose network is smaller than the package's."""
    (tmp_path / "own" / "model").mkdir(parents=True)
    text = (installation.CONF / "model" / "mlp.yaml").read_text().replace("[512, 512]", "[8, 8]")
    assert "[8, 8]" in text
    (tmp_path / "own" / "model" / "mlp.yaml").write_text(text)
    monkeypatch.setenv("EXPERIMENTS_CONF", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own"


def widths(folder):
    return [
        read_config(run)["model"]["net"]["hidden_features"]
        for run in sorted(
            (path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name)
        )
    ]


def edit(own):
    path = own / "model" / "mlp.yaml"
    path.write_text(path.read_text().replace("[8, 8]", "[64]"))


def test_trials_after_an_edit_are_composed_as_those_before(own, script_here, tmp_path, monkeypatch):
    where = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    assert script_here("train", *SEARCH, "hydra.sweeper.n_trials=2", where)[0] == 0
    edit(own)
    monkeypatch.setenv("EXPERIMENTS_CONF", str(own))
    code, _, errors = script_here("train", *SEARCH, "hydra.sweeper.n_trials=4", where)
    assert code == 0, errors
    assert "what has changed since is ignored: model/mlp.yaml" in errors
    assert widths(tmp_path / "sweep") == [[8, 8]] * 4


def test_a_grid_that_runs_while_files_are_edited_is_not_touched(own, script_here, tmp_path, monkeypatch):
    from experiments.training import run

    train = run.train

    def and_edit(*arguments, **options):
        edit(own)  # before the second job is composed
        return train(*arguments, **options)

    monkeypatch.setattr(run, "train", and_edit)
    where = f"hydra.sweep.dir={tmp_path / 'grid'}"
    assert script_here("train", "-m", "seed=0,1", where, *SHORT, "trainer.max_epochs=1")[0] == 0
    assert widths(tmp_path / "grid") == [[8, 8]] * 2
    monkeypatch.setenv("EXPERIMENTS_CONF", str(own))
    code, _, errors = script_here("train", "-m", "seed=0,1,2", where, *SHORT, "trainer.max_epochs=1")
    assert code == 0, errors
    assert widths(tmp_path / "grid") == [[8, 8]] * 3


def test_local_defaults_that_are_written_later_do_not_count(own, tmp_path, capsys):
    conf_files.copy_to(tmp_path / "kept")
    before = conf_files.every_file()
    (own / "local").mkdir()
    (own / "local" / "default.yaml").write_text("# @package _global_\nseed: 7\n")
    conf_files.use_frozen(tmp_path / "kept")
    assert "is ignored: local/default.yaml" in capsys.readouterr().err
    assert conf_files.find("local/default").read_bytes() == conf_files.NO_DEFAULTS
    for name, path in before.items():
        assert (tmp_path / "kept" / name).read_bytes() == path.read_bytes()
    shutil.rmtree(own)
