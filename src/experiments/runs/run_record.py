"""Write what a run directory says of its run: config, environment, summary, fault."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.errors import UserError
from experiments.runs.files import write_atomically
from experiments.runs.redaction import redacted
from experiments.runs.run_directory import read_summary

PACKAGES = (
    "experiments",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "numpy",
    "scikit-learn",
)


def record_start(run_dir: Path, config: Mapping[str, Any], overrides: Sequence[str], code: Path) -> None:
    """Record what is about to run, before it runs; ``code`` is a folder of the repository that the code is in.

    Raises:
        UserError: if another run left something in the directory.
    """
    failed = (read_summary(run_dir) or {}).get("status") == "failed"
    if list(run_dir.glob("checkpoints/*.ckpt")) or ((run_dir / "config.yaml").exists() and not failed):
        raise UserError(f"{run_dir} holds a run: go on with it by resume=, or name another folder")
    run_dir.mkdir(parents=True, exist_ok=True)
    reopen(run_dir)
    git, diff = git_state(code)
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


def record_traceback(run_dir: Path, report: str) -> None:
    """Keep the traceback of a fault of the program in ``error.txt``."""
    _write(run_dir / "error.txt", redacted(report))


def reopen(run_dir: Path, config: Mapping[str, Any] | None = None) -> None:
    """Take away what says that the run has ended, and keep another config if there is one: it goes on."""
    if config is not None:
        _write(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    for name in ("summary.json", "error.txt"):
        (run_dir / name).unlink(missing_ok=True)


def record_summary(run_dir: Path, summary: Mapping[str, Any]) -> None:
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


def code_change(run_dir: Path, code: Path) -> str | None:
    """That the code has changed since a run began, in a sentence; None if it has not, or nobody knows."""
    try:
        before = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))["git"]["commit"]
        uncommitted = (run_dir / "git.diff").read_text(encoding="utf-8") if (run_dir / "git.diff").exists() else ""
    except (OSError, ValueError, KeyError, TypeError):
        return None
    now, diff = git_state(code)
    if now is None or (now["commit"] == before and redacted(diff) == uncommitted):
        return None
    since = "uncommitted changes" if now["commit"] == before else f"commit {str(before)[:10]}"
    return f"the code is not that which {run_dir} began with: it has changed since {since}, and results may too"


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
