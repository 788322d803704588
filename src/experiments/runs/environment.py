"""Describe the code and the machine that a run had, so that both can be had again."""

import hashlib
import inspect
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from experiments.runs.redaction import redacted, redacted_code
from experiments.runs.run_directory import read_environment

INSTALLED = ("experiments.", "torch.", "torchvision.", "torchmetrics.", "lightning.")
NEW_FILES = ("src/", "conf/", "scripts/")  # of these, new .py and .yaml files belong to the code that ran
MAX_DIFF = 1_000_000  # characters


def describe_environment(config: Mapping[str, Any], code: Path) -> tuple[dict[str, Any], str]:
    """The environment of a run that starts now, and the diff that makes its code out of the commit, if any."""
    import torch

    git, diff = git_state(code)
    return {
        "command": [sys.executable, *map(redacted, sys.argv)],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _line_of(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cpus": os.cpu_count(),
        "threads": {"torch": torch.get_num_threads(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        "cuda": torch.version.cuda,
        "gpu_driver": _line_of(Path("/proc/driver/nvidia/version"), "NVRM version"),
        "gpus": [_line_of(path, "Model") for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))],
        "versions": installed_packages(),
        "git": git,
        "own_code": own_code(config),
    }, diff


def installed_packages() -> dict[str, str]:
    """The version of every installed package, with the folder of those that run from one."""
    found: dict[str, str] = {}
    for folder in map(Path, sys.path):
        for path in folder.glob("*.dist-info"):  # importlib.metadata would read hundreds of files
            name, _, version = path.stem.rpartition("-")
            origin = path / "direct_url.json"
            if origin.exists():
                try:
                    version += f" ({redacted(str(json.loads(origin.read_text())['url']))})"
                except (OSError, ValueError, KeyError, TypeError):
                    version += " (from a folder or an address)"
            found.setdefault(name.replace("_", "-").lower(), version)
    return dict(sorted(found.items()))


def git_state(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Commit, changes and what of them is left out of the diff, and the diff; None without git.

    The diff holds changed files and, of ``src``, ``conf`` and ``scripts``, new Python and YAML files. Secrets are
    taken out, and files that would make it longer than ``MAX_DIFF``.
    """

    def git(*arguments: str, fine: tuple[int, ...] = (0,)) -> str:
        command = ["git", "-c", "core.quotePath=false", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, timeout=10)
        if done.returncode not in fine:
            raise subprocess.SubprocessError(done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("utf-8", "replace")  # with the ends of lines as they are

    plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--binary")
    try:
        commit, top = git("rev-parse", "HEAD").strip(), git("rev-parse", "--show-toplevel").strip()
        status = git("status", "--porcelain", "--untracked-files=all").splitlines()
        parts = re.split(r"(?m)^(?=diff --git )", git("diff", *plain, "HEAD")) if status else []
        for line in status:
            name = line[3:].strip('"')
            if line.startswith("??") and name.startswith(NEW_FILES) and name.endswith((".py", ".yaml", ".yml")):
                parts.append(git("-C", top, "diff", "--no-index", *plain, "--", "/dev/null", name, fine=(0, 1)))
    except (OSError, subprocess.SubprocessError):
        return None, ""
    diff, left_out = "", []
    for part in parts:
        if len(diff) + len(part) > MAX_DIFF:
            left_out.append(part.partition("\n")[0].rpartition(" b/")[2])
        else:
            diff += redacted_code(part)
    return {"commit": commit, "changed": status, "left_out_of_diff": left_out}, diff


def code_change(run_dir: Path, code: Path) -> str | None:
    """That the code is not the one a run last had, in a sentence; None if it is, or nobody knows."""
    try:
        environment = read_environment(run_dir)
        latest = (environment.get("resumed") or [environment])[-1]
        own = {str(path): digest for path, digest in dict(latest.get("own_code") or {}).items()}
        before = str((latest.get("git") or {}).get("commit"))
        kept = "git.diff" if latest is environment else latest.get("diff")  # a resume without changes has none
        uncommitted = (
            (run_dir / kept).read_bytes().decode("utf-8", "replace") if kept and (run_dir / kept).exists() else ""
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    changed = [path for path, digest in own.items() if Path(path).is_file() and _digest(Path(path)) != digest]
    now, diff = git_state(code)
    if now is not None and before != "None":
        if now["commit"] != before:
            changed.append(f"this project since commit {before[:10]}")
        elif diff != uncommitted:
            changed.append("this project, in what is not committed")
    return f"code has changed since {run_dir} began, and results may too: {', '.join(changed)}" if changed else None


def own_code(config: Any) -> dict[str, str]:
    """The files that a config's classes of one's own stand in, and what is in them, as digests."""
    found: dict[str, str] = {}
    parts = config.values() if isinstance(config, Mapping) else config if isinstance(config, (list, tuple)) else ()
    for part in parts:
        found |= own_code(part)
    target = config.get("_target_") if isinstance(config, Mapping) else None
    if isinstance(target, str) and not target.startswith(INSTALLED):
        try:
            path = Path(inspect.getfile(get_object(target)))
            if "site-packages" not in path.parts:
                found[str(path)] = _digest(path)
        except Exception:  # what has no file, or is said to be missing elsewhere
            return found
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _line_of(path: Path, key: str) -> str | None:
    """What a file of the system says of a key, in its first ``key: value`` line."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
