"""What tests share: scripts run as users run them, and small files in the data sets' true formats."""

import gzip
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def mnist_root() -> str:
    """The folder that holds the real MNIST/raw."""
    root = os.environ.get("MNIST_ROOT")
    if not root:
        pytest.skip("MNIST_ROOT is not set: it names the folder that holds MNIST/raw")
    return root


@pytest.fixture
def script(tmp_path):
    """Run ``python scripts/<name>.py *arguments`` in an empty folder; returns the finished process."""

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("EXPERIMENTS_")}
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments],
            cwd=tmp_path,
            env={**clean, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def script_here(monkeypatch, capsys):
    """Run ``scripts/<name>.py`` in this process, which has imported torch already; returns code, output, errors."""

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])  # scripts add the current folder
        code = 0
        try:
            runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        except SystemExit as ending:
            code = ending.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(autouse=True)
def _own_run_id(monkeypatch):
    """A run's id travels to its children in the environment: no test inherits another's."""
    monkeypatch.delenv("EXPERIMENTS_RUN_ID", raising=False)


def idx_bytes(values: torch.Tensor) -> bytes:
    """A tensor of uint8 in LeCun's IDX format."""
    header = bytes([0, 0, 8, values.dim()]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.numpy().tobytes()


def write_idx_files(folder: Path, train: int = 60, test: int = 20, packed: bool = False) -> None:
    """Small files in MNIST's format: random images, labels that cycle through the ten classes."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for prefix, count in (("train", train), ("t10k", test)):
        images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)
        labels = (torch.arange(count) % 10).to(torch.uint8)
        for name, values in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            content = idx_bytes(values)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


@pytest.fixture
def small_mnist(tmp_path) -> Path:
    """A root whose MNIST/raw holds 60 training and 20 test images."""
    write_idx_files(tmp_path / "files" / "MNIST" / "raw")
    return tmp_path / "files"
