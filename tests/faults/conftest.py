import json
import sys
from pathlib import Path

import pytest

from tests.fork_server import ROOT, ForkServer, Process

if sys.platform != "linux":  # macOS does not let a process with threads fork, Windows not at all
    collect_ignore_glob = ["test_*.py"]

BASE = (
    "model.net.hidden_features=[16,8]", "model.net.norm=batch", "model.net.dropout=0.2",
    "data.batch_size=64", "trainer.max_epochs=6", "trainer.accelerator=cpu", "logger=csv",
    "callbacks.rolling_checkpoint.every_n_steps=7", "callbacks.model_summary=null",
)  # fmt: skip


class Runs:
    """Starts and resumes runs of one small network."""

    def __init__(self, processes: ForkServer) -> None:
        self.forks = processes
        self.processes: dict[int, Process] = {}

    def start(self, run_dir: Path, *overrides: str) -> int:
        """Start or resume a run in ``run_dir``; returns the process's pid."""
        if (run_dir / "config.yaml").exists():
            overrides = (*overrides, f"resume={run_dir}")
        typed = (*BASE, *overrides, f"hydra.run.dir={run_dir}")
        process = self.forks.start(ROOT, self.output(run_dir), "tests/faults/train.py", *typed)
        self.processes[process.pid] = process
        return process.pid

    def wait(self, pid: int) -> int:
        """The process's exit code; negative for the signal that killed it."""
        return self.processes[pid].wait()

    def finish(self, run_dir: Path, *overrides: str) -> dict:
        """Run, or go on, to the end; returns the summary."""
        code = self.wait(self.start(run_dir, *overrides))
        assert code == 0, self.output(run_dir).read_text()
        return json.loads((run_dir / "summary.json").read_text())

    def output(self, run_dir: Path) -> Path:
        """The file that holds what the run printed."""
        file = run_dir.with_suffix(".out")
        file.touch()
        return file


@pytest.fixture(scope="session")
def fork_server(processes):
    return Runs(processes)
