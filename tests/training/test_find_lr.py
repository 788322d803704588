import pytest
import torch

import experiments
from experiments.errors import UserError
from experiments.sweeps.summary.pictures import are_installed
from experiments.training.find_lr import find_lr
from tests.conftest import ROOT


def test_it_finds_a_rate_at_which_a_network_learns(tmp_path):
    picture = tmp_path / "loss.png" if are_installed("matplotlib") else None
    config = experiments.compose("model=mlp", "trainer.accelerator=cpu", f"run_dir={tmp_path}", "optimizer=sgd")
    torch.manual_seed(0)
    fastest, lowest = find_lr(config, picture=picture)
    assert 1e-4 < fastest < lowest <= 1
    assert list(tmp_path.iterdir()) == ([picture] if picture else [])  # its checkpoint is gone
    assert picture is None or picture.read_bytes().startswith(b"\x89PNG")


def test_a_schedule_that_counts_steps_is_no_obstacle_and_no_picture_is_drawn_unasked(tmp_path):
    config = experiments.compose("trainer.accelerator=cpu", f"run_dir={tmp_path}", "data.limit=200")
    fastest, _ = find_lr(config, steps=30)
    assert fastest > 1e-6
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_loses_no_result(tmp_path):
    if not are_installed("matplotlib"):
        pytest.skip("matplotlib is not installed")
    config = experiments.compose("model=mlp", "trainer.accelerator=cpu", f"run_dir={tmp_path}", "optimizer=sgd")
    with pytest.raises(UserError, match=r"nowhere/a\.pngx cannot be written: .* fell fastest at .* lowest at"):
        find_lr(config, picture=tmp_path / "nowhere" / "a.pngx")


@pytest.mark.parametrize("options", [{"min_lr": 0.0}, {"min_lr": 2.0}, {"steps": 3}], ids=str)
def test_numbers_that_make_no_range_are_refused(options):
    with pytest.raises(UserError, match="must lie between"):
        find_lr(experiments.compose(), **options)


def test_the_script_prints_what_to_type_next(script_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = ("model=mlp", "trainer.accelerator=cpu", "optimizer=sgd", "picture=loss.png", "steps=40")
    code, output, errors = script_here("find_lr", *typed)
    assert code == 0, errors
    lines = output.splitlines()
    train = f"python {ROOT / 'scripts' / 'train.py'}"
    assert lines[-1].startswith(f"next: {train} model=mlp trainer.accelerator=cpu optimizer=sgd optimizer.lr=")
    assert {path.name for path in tmp_path.iterdir()} <= {"loss.png"}
    code, _, errors = script_here("find_lr", "model=mpl")
    assert code == 2
    assert "model=mpl: there is no such choice. Did you mean model=mlp?" in errors
    assert "Traceback" not in errors
