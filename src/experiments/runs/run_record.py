"""Write what a run directory says of its run: config, environment, summary, fault."""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.errors import UserError
from experiments.runs.environment import describe
from experiments.runs.files import write_atomically
from experiments.runs.redaction import redacted
from experiments.runs.run_directory import read_summary


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
    environment, diff = describe(config, code)
    environment = {"id": secrets.token_hex(8), **environment}
    _write(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    _write(run_dir / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
    _write(run_dir / "environment.json", json.dumps(environment, indent=2) + "\n")
    for left in run_dir.glob("git*.diff"):  # of a run that failed here before
        left.unlink()
    if diff:
        _write(run_dir / "git.diff", diff)


def record_resume(run_dir: Path, config: Mapping[str, Any], code: Path) -> None:
    """Add to the record with which code, and on which machine, a run goes on."""
    path = run_dir / "environment.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        resumed = list(known.get("resumed", []))
    except (OSError, ValueError, AttributeError, TypeError):
        return  # damaged, or of a user's making: it stays as it is
    environment, diff = describe(config, code)
    if diff:
        environment["diff"] = f"git.{len(resumed) + 1}.diff"
        _write(run_dir / environment["diff"], diff)
    _write(path, json.dumps({**known, "resumed": [*resumed, environment]}, indent=2) + "\n")


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


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
