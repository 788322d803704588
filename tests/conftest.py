"""Fixtures that tests share: scripts run as users run them, and small data.

Torch is imported by what needs it: the process that hands out the tests does not.
"""

import gc
import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path

os.environ.pop("UV_RUN_RECURSION_DEPTH", None)  # what tests start is not started by uv, even if they are
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])  # as if activated
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run beside each other; threads that wait for each other crawl

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    gc.disable()  # until all is imported: looking through it again and again takes a quarter of the time

from tests.fork_server import ForkServer
from tests.quick_compose import compose_quickly

ROOT = Path(__file__).resolve().parents[1]
compose_quickly()


def pytest_collection_finish(session):
    """What is imported by now stays, and is not to be looked through at each collection of garbage."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 20, 20)


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


@pytest.fixture(scope="session")
def processes():
    """Starts scripts as processes whose imports are done: where a process is tested, and not how it begins."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def forked(processes, tmp_path):
    """As ``script``, in a process whose imports are done."""

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess:
        output, errors = tmp_path / "stdout.txt", tmp_path / "stderr.txt"
        code = processes.start(tmp_path, output, f"scripts/{name}.py", *arguments, errors=errors).wait()
        return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())

    return run


@pytest.fixture
def script_here(monkeypatch, capsys):
    """Run ``scripts/<name>.py`` in this process, which has imported torch already; returns code, output, errors."""

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])  # scripts add the current folder
        code, handlers = 0, [*logging.getLogger().handlers]
        try:
            runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        except SystemExit as ending:
            code = ending.code
        finally:
            logging.getLogger().handlers[:] = handlers  # Hydra's would write to what pytest has closed
        return code, *capsys.readouterr()

    return run


@pytest.fixture(autouse=True)
def _own_run_id(monkeypatch):
    """A run's id and a sweep's conf files travel to children in the environment: no test inherits another's."""
    monkeypatch.delenv("EXPERIMENTS_RUN_ID", raising=False)
    monkeypatch.setenv("EXPERIMENTS_CONF", "")


@pytest.fixture
def small_mnist(tmp_path) -> Path:
    """A root whose MNIST/raw holds 60 training and 20 test images."""
    from tests.small_data import write_idx_files

    write_idx_files(tmp_path / "files" / "MNIST" / "raw")
    return tmp_path / "files"


@pytest.fixture
def small_data(tmp_path, monkeypatch):
    """Write small files for a choice of the group ``data``; returns the overrides that make a run use them."""

    from tests.small_data import SMALL_DATA

    def write(data: str) -> list[str]:
        root = tmp_path / "files"
        if data not in SMALL_DATA:  # it comes along, as the digits do
            return []
        return [f"data.root={root}", "data.val_size=20", *SMALL_DATA[data](root, monkeypatch)]

    return write
