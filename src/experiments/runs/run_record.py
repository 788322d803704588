"""Write what a run directory says of its run: config, environment, summary, traceback."""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.errors import UserError
from experiments.runs.environment import describe_environment
from experiments.runs.files import write_atomically
from experiments.runs.redaction import redacted
from experiments.runs.run_directory import read_environment, read_summary


def record_start(run_dir: Path, config: Mapping[str, Any], overrides: Sequence[str], code_dir: Path) -> None:
    """Record what is about to run, before it runs; ``code_dir`` is a folder of the repository that the code is in.

    Raises:
        UserError: if another run left something in the directory.
    """
    failed = (read_summary(run_dir) or {}).get("status") == "failed"
    if list(run_dir.glob("checkpoints/*.ckpt")) or ((run_dir / "config.yaml").exists() and not failed):
        raise UserError(f"{run_dir} holds a run: continue it with resume={run_dir}, or name another folder")
    run_dir.mkdir(parents=True, exist_ok=True)
    clear_outcome(run_dir)
    environment, diff = describe_environment(config, code_dir)
    environment = {"id": secrets.token_hex(8), **environment}
    _write(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    _write(run_dir / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
    _write(run_dir / "environment.json", json.dumps(environment, indent=2) + "\n")
    for left in run_dir.glob("git*.diff"):  # of a run that failed here before
        left.unlink()
    if diff:
        _write(run_dir / "git.diff", diff)


def record_resume(run_dir: Path, config: Mapping[str, Any], code_dir: Path) -> None:
    """Add to the record with which code, and on which machine, a run is resumed."""
    known = read_environment(run_dir)
    resumed = known.get("resumed", [])
    if not known or not isinstance(resumed, list):
        return  # damaged, or of a user's making: it stays as it is
    environment, diff = describe_environment(config, code_dir)
    if diff:
        environment["diff"] = f"git.{len(resumed) + 1}.diff"
        _write(run_dir / environment["diff"], diff)
    _write(run_dir / "environment.json", json.dumps({**known, "resumed": [*resumed, environment]}, indent=2) + "\n")


def record_traceback(run_dir: Path, traceback_text: str) -> None:
    """Write the traceback of a crash of the program to ``error.txt``, without secrets."""
    _write(run_dir / "error.txt", redacted(traceback_text))


def clear_outcome(run_dir: Path, new_config: Mapping[str, Any] | None = None) -> None:
    """Remove the summary and the traceback of a run that starts or resumes; replace its config if one is given."""
    if new_config is not None:
        _write(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(new_config))))
    for name in ("summary.json", "error.txt"):
        (run_dir / name).unlink(missing_ok=True)


def record_summary(run_dir: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``, whole or not at all."""
    _write(run_dir / "summary.json", json.dumps(summary, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
