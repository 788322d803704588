"""The run directory: what a run leaves, and reading it back.

config.yaml        the resolved config
overrides.yaml     what was typed
environment.json   versions, machine, git commit, command
git.diff           uncommitted changes to the code, if any
checkpoints/       best.ckpt and the last ones
summary.json       results; written last, so its existence means that the run is over
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import Timeout
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from experiments import composition
from experiments.checkpoints import write_atomically
from experiments.composition import MOST_BYTES, lock
from experiments.config.installation import CHECKOUT, DISTRIBUTION
from experiments.errors import UserError
from experiments.secrecy import redacted

PACKAGES = (
    DISTRIBUTION,
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "numpy",
    "scikit-learn",
)


def is_first_rank() -> bool:
    """Whether this process speaks for all ranks of its run."""
    return not getattr(rank_zero_only, "rank", 0)


@contextmanager
def occupied(run_dir: Path) -> Iterator[None]:
    """Work in a run directory as the only process; other ranks of the same run stand behind the first.

    Raises:
        UserError: if another process works there.
    """
    if not is_first_rank():
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with lock(run_dir).acquire(timeout=0):
            yield
    except Timeout:
        raise UserError(f"another process works in {run_dir}: wait for it, or name another run") from None


def start(run_dir: Path, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Record what is about to run, before it runs.

    Raises:
        UserError: if another run left something in the directory.
    """
    failed = (read_summary(run_dir) or {}).get("status") == "failed"
    if list(run_dir.glob("checkpoints/*.ckpt")) or ((run_dir / "config.yaml").exists() and not failed):
        raise UserError(f"{run_dir} holds a run: go on with it by resume={run_dir}, or name another folder")
    run_dir.mkdir(parents=True, exist_ok=True)
    reopen(run_dir)
    git, diff = git_state(CHECKOUT or Path.cwd())
    environment = {
        "command": [sys.executable, *map(redacted, sys.argv)],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "git": git,
    }
    _write(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    _write(run_dir / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
    _write(run_dir / "environment.json", json.dumps(environment, indent=2) + "\n")
    if diff:
        _write(run_dir / "git.diff", redacted(diff))


def record_fault(run_dir: Path, report: str) -> None:
    """Keep the traceback of a fault of the program in ``error.txt``."""
    _write(run_dir / "error.txt", redacted(report))


def reopen(run_dir: Path, config: Mapping[str, Any] | None = None) -> None:
    """Take away what says that the run has ended, and keep another config if there is one: it goes on."""
    if config is not None:
        _write(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    for name in ("summary.json", "error.txt"):
        (run_dir / name).unlink(missing_ok=True)


def finish(run_dir: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``, whole or not at all."""
    _write(run_dir / "summary.json", json.dumps(summary, indent=2) + "\n")


def git_state(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Commit and cleanliness of the repository around ``folder``, and its uncommitted changes; None without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=True, timeout=10
        ).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        status = git("status", "--porcelain")
        diff = git("diff", "--no-ext-diff", "--no-textconv", "HEAD") if status else ""
    except (OSError, subprocess.SubprocessError):
        return None, ""
    return {"commit": commit, "changed": status.splitlines()}, diff


def read_config(run_dir: Path) -> dict[str, Any]:
    """The resolved config of a run: plain values, not to be built before ``trust.check_config`` has seen them.

    Raises:
        UserError: if the folder holds no readable run.
    """
    return composition.read_config(run_dir / "config.yaml")


def read_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary of a run that is over; None if it is not.

    Raises:
        UserError: if the file is damaged.
    """
    path = run_dir / "summary.json"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes, which no summary is")
        summary = json.loads(path.read_text())
        if not isinstance(summary, dict):
            raise ValueError(f"it holds a {type(summary).__name__}, not a mapping")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return summary


def best_checkpoint(run_dir: Path) -> Path:
    """The checkpoint that a run's test result is of.

    Raises:
        UserError: if the run left none.
    """
    summary = read_summary(run_dir) or {}
    name = summary.get("best_checkpoint") or "checkpoints/best.ckpt"
    if not isinstance(name, str) or "\0" in name:
        raise UserError(f"{run_dir / 'summary.json'} names no file as its best_checkpoint")
    path = run_dir / name
    if run_dir.resolve() not in path.resolve().parents:
        raise UserError(f"{run_dir / 'summary.json'} names a checkpoint outside its run: {path}")
    if not path.is_file():
        raise UserError(f"{run_dir} has no best checkpoint: {path} is missing")
    return path


def checkpoint_of(run: str | Path | None, checkpoint: str | Path | None) -> Path:
    """The checkpoint that a command names: a run's best, or a file of its own.

    Raises:
        UserError: unless one of the two is given.
    """
    if (run is None) == (checkpoint is None):
        raise UserError("name either run=<run directory>, for its best checkpoint, or checkpoint=<file>")
    return best_checkpoint(Path(run)) if run is not None else Path(checkpoint or "")


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
