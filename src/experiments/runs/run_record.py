"""Write what a run directory says of its run: config, environment, summary, fault."""

import hashlib
import inspect
import json
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import OmegaConf

from experiments.errors import UserError
from experiments.runs.files import write_atomically
from experiments.runs.redaction import redacted
from experiments.runs.run_directory import read_summary

INSTALLED = ("experiments.", "torch.", "torchvision.", "torchmetrics.", "lightning.")
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
        "id": secrets.token_hex(8),
        "command": [sys.executable, *map(redacted, sys.argv)],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "git": git,
        "own_code": own_code(config),
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
        environment = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
        own = {str(path): digest for path, digest in dict(environment.get("own_code") or {}).items()}
        before = str((environment.get("git") or {}).get("commit"))
        uncommitted = (run_dir / "git.diff").read_text(encoding="utf-8") if (run_dir / "git.diff").exists() else ""
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    changed = [path for path, digest in own.items() if Path(path).is_file() and _digest(Path(path)) != digest]
    now, diff = git_state(code)
    if now is not None and before != "None":
        if now["commit"] != before:
            changed.append(f"this project since commit {before[:10]}")
        elif redacted(diff) != uncommitted:
            changed.append("this project, in what is not committed")
    return f"code has changed since {run_dir} began, and results may too: {', '.join(changed)}" if changed else None


def own_code(config: Any) -> dict[str, str]:
    """The files that a config's classes of one's own stand in, and what is in them, as digests."""
    found: dict[str, str] = {}
    for part in (
        config.values() if isinstance(config, Mapping) else config if isinstance(config, (list, tuple)) else ()
    ):
        found |= own_code(part)
    target = config.get("_target_") if isinstance(config, Mapping) else None
    if isinstance(target, str) and not target.startswith(INSTALLED):
        try:
            path = Path(inspect.getfile(get_object(target)))
        except Exception:  # what has no file, or is said to be missing elsewhere
            return found
        if "site-packages" not in path.parts:
            found[str(path)] = _digest(path)
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
