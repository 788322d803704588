"""Runs on a GPU; without one, every test of this folder is skipped."""

from pathlib import Path

import pytest
import torch

import experiments
from experiments.training.run import train


def pytest_collection_modifyitems(items):
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.gpu)
        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU that CUDA knows"))


@pytest.fixture
def run(tmp_path):
    """Train on the GPU in this process; returns the run directory and its summary."""

    def start(*overrides: str, name: str = "run") -> tuple[Path, dict]:
        folder = tmp_path / name
        short = ("trainer.max_epochs=3", "logger=none", "trainer.accelerator=gpu", f"run_dir={folder}")
        return folder, train(experiments.compose(*short, *overrides))

    return start
