import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

if sys.platform != "linux":  # macOS does not let a process with threads fork, Windows not at all
    collect_ignore_glob = ["test_*.py"]

BASE = (
    "model.net.hidden_features=[16,8]", "model.net.norm=batch", "model.net.dropout=0.2",
    "data.batch_size=64", "trainer.max_epochs=6", "trainer.accelerator=cpu", "logger=csv",
    "callbacks.rolling_checkpoint.every_n_steps=7", "callbacks.model_summary=null",
)  # fmt: skip


class ForkServer:
    """Starts runs as children of a process that has its imports done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_server"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def _ask(self, request) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, run_dir: Path, *overrides: str) -> int:
        """Start or resume a run in ``run_dir``; returns the child's pid."""
        where = [f"hydra.run.dir={run_dir}"] + ([f"resume={run_dir}"] if (run_dir / "config.yaml").exists() else [])
        return self._ask([str(self.output(run_dir)), *BASE, *overrides, *where])

    def wait(self, pid: int) -> int:
        """The child's exit code; negative for the signal that killed it."""
        return self._ask(pid)

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

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    started = ForkServer(tmp_path_factory.mktemp("fork-server"))
    yield started
    started.close()


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
