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

LIBRARY_PREFIXES = ("experiments.", "torch.", "torchvision.", "torchmetrics.", "lightning.")
SOURCE_FOLDERS = ("src/", "conf/", "scripts/")  # new .py and .yaml files in them belong to the code that ran
GIT_OPTIONS = ("-c", "core.quotePath=false", "-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false")
MAX_DIFF = 1_000_000  # characters


def describe_environment(config: Mapping[str, Any], code: Path) -> tuple[dict[str, Any], str]:
    """The environment of a run that starts now, and the diff that makes its code out of the commit, if any."""
    import torch

    git, diff = git_state(code)
    own_conf = [f"--config-dir={folder}"] if (folder := os.environ.get("EXPERIMENTS_CONF")) else []
    return {
        "command": [sys.executable, *map(redacted, [*sys.argv, *own_conf])],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _system_value(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cpus": os.cpu_count(),
        "threads": {"torch": torch.get_num_threads(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        "cuda": torch.version.cuda,
        "gpu_driver": _system_value(Path("/proc/driver/nvidia/version"), "NVRM version"),
        "gpus": [
            _system_value(path, "Model") for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        ],
        "versions": installed_packages(),
        "git": git,
        "own_code": user_code_digests(config),
    }, diff


def installed_packages() -> dict[str, str]:
    """The version of every installed package, with the folder of those that run from one."""
    versions: dict[str, str] = {}
    for folder in map(Path, sys.path):
        for path in folder.glob("*.dist-info"):  # importlib.metadata would read hundreds of files
            name, _, version = path.stem.rpartition("-")
            origin = path / "direct_url.json"
            if origin.exists():
                try:
                    version += f" ({redacted(str(json.loads(origin.read_text())['url']))})"
                except (OSError, ValueError, KeyError, TypeError):
                    version += " (from a folder or an address)"
            versions.setdefault(name.replace("_", "-").lower(), version)
    return dict(sorted(versions.items()))


def git_state(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Commit, changes and what of them is left out of the diff, and the diff; None without git.

    The diff holds changed files and, of ``src``, ``conf`` and ``scripts``, new Python and YAML files. Secrets are
    taken out, and files that would make it longer than ``MAX_DIFF``.
    """

    def git(*arguments: str, ok_codes: tuple[int, ...] = (0,)) -> str:
        command = ["git", *GIT_OPTIONS, "-C", str(folder), *arguments]
        process = subprocess.run(command, capture_output=True, timeout=10)
        if process.returncode not in ok_codes:
            raise subprocess.SubprocessError(process.stderr.decode("utf-8", "replace"))
        return process.stdout.decode("utf-8", "replace")  # with the ends of lines as they are

    diff_options = ("--no-ext-diff", "--no-textconv", "--no-color", "--binary")
    try:
        commit, root = git("rev-parse", "HEAD", "--show-toplevel").splitlines()
        status = git("status", "--porcelain", "--untracked-files=all").splitlines()
        file_diffs = re.split(r"(?m)^(?=diff --git )", git("diff", *diff_options, "HEAD")) if status else []
        for line in status:
            name = line[3:].strip('"')
            if line.startswith("??") and name.startswith(SOURCE_FOLDERS) and name.endswith((".py", ".yaml", ".yml")):
                compare = ("diff", "--no-index", *diff_options, "--", "/dev/null", name)
                file_diffs.append(git("-C", root, *compare, ok_codes=(0, 1)))
    except (OSError, subprocess.SubprocessError):
        return None, ""
    diff, left_out = "", []
    for file_diff in file_diffs:
        if len(diff) + len(file_diff) > MAX_DIFF:
            left_out.append(file_diff.partition("\n")[0].rpartition(" b/")[2])
        else:
            diff += redacted_code(file_diff)
    return {"commit": commit, "changed": status, "left_out_of_diff": left_out}, diff


def code_change_warning(run_dir: Path, code: Path) -> str | None:
    """A sentence that says what code has changed since a run last used it; None if none has, or nobody knows."""
    try:
        environment = read_environment(run_dir)
        last_start = (environment.get("resumed") or [environment])[-1]
        digests = {str(path): digest for path, digest in dict(last_start.get("own_code") or {}).items()}
        commit = str((last_start.get("git") or {}).get("commit"))
        diff_file = "git.diff" if last_start is environment else last_start.get("diff")  # a resume may have none
        diff = ""
        if diff_file and (run_dir / diff_file).exists():
            diff = (run_dir / diff_file).read_bytes().decode("utf-8", "replace")
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    changed = []
    for path, digest in digests.items():
        if (digest_now := _digest(Path(path))) != digest:
            changed.append(path if digest_now else f"{path} (missing)")
    git_now, diff_now = git_state(code)
    if git_now is not None and commit != "None":
        if git_now["commit"] != commit:
            changed.append(f"this project since commit {commit[:10]}")
        elif diff_now != diff:
            changed.append("this project, in what is not committed")
    return f"code has changed since {run_dir} began, and results may too: {', '.join(changed)}" if changed else None


def user_code_digests(config: Any) -> dict[str, str]:
    """A digest for each file that holds a class of the user's own that a config names."""
    digests: dict[str, str] = {}
    parts = config.values() if isinstance(config, Mapping) else config if isinstance(config, (list, tuple)) else ()
    for part in parts:
        digests |= user_code_digests(part)
    target = config.get("_target_") if isinstance(config, Mapping) else None
    if isinstance(target, str) and not target.startswith(LIBRARY_PREFIXES):
        try:
            path = Path(inspect.getfile(get_object(target)))
        except Exception:  # what has no file, or is said to be missing elsewhere
            return digests
        digest = _digest(path)
        if "site-packages" not in path.parts and digest is not None:
            digests[str(path)] = digest
    return digests


def _digest(path: Path) -> str | None:
    """The digest of a file's content; None where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _system_value(path: Path, key: str) -> str | None:
    """The value in the first line ``key: value`` of a file of the operating system's."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
