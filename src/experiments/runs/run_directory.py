"""The run directory: what a run leaves, and reading it back.

config.yaml        the resolved config
overrides.yaml     what was typed
environment.json   versions, machine, git commit, command; of every time that it went on, too
error.txt          the traceback, if the program crashed
git.diff           what makes the code that ran out of the commit, if anything; git.1.diff of the first resume
per_class_*.csv    precision, recall, F1, accuracy and support of each class; confusion_*.csv the matrix
checkpoints/       best.ckpt and the last ones
metrics.jsonl      every row that loggers were given
summary.json       results; written last, so its existence means that the run is over
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import Timeout

from experiments.errors import UserError
from experiments.runs.files import MAX_BYTES, lock


def is_first_rank() -> bool:
    """Whether this process speaks for all ranks of its run."""
    from lightning.pytorch.utilities import rank_zero_only  # runs are also read without torch

    return not getattr(rank_zero_only, "rank", 0)


def on_test(metric: str) -> str:
    """The name of a validation metric on the test split; of any other, its own."""
    return f"test/{metric.removeprefix('val/')}" if metric.startswith("val/") else metric


@contextmanager
def hold_lock(run_dir: Path) -> Iterator[None]:
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


class _PlainLoader(yaml.SafeLoader):
    """Plain values alone; no aliases, which make a few lines stand for billions."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias, which no run writes")
        return super().compose_node(parent, index)


def read_config(run_dir: Path) -> dict[str, Any]:
    """The resolved config of a run: plain values, not to be built before ``check_allowed`` has seen them.

    Raises:
        UserError: if the file is missing, damaged or larger than any config is.
    """
    path = run_dir / "config.yaml"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} cannot be read: it is larger than {MAX_BYTES:,} bytes, which no config is")
        config = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except FileNotFoundError:
        raise UserError(
            f"{run_dir} is no run directory: it has no config.yaml. Name one, such as runs/<name>/<id>"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no text, or a number beyond all bounds
        raise UserError(f"{path} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
    except RecursionError:
        raise UserError(f"{path} cannot be read: it is nested too deep") from None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise UserError(f"{path} holds no config")
    return config


def read_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary of a run that is over; None if it is not.

    Raises:
        UserError: if the file is damaged.
    """
    path = run_dir / "summary.json"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes, which no summary is")
        summary = json.loads(path.read_text())
        if not isinstance(summary, dict):
            raise ValueError(f"it holds a {type(summary).__name__}, not a mapping")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return summary


def read_environment(run_dir: Path) -> dict[str, Any]:
    """What is recorded of a run's code and machine; empty where that is missing or damaged."""
    try:
        environment = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return environment if isinstance(environment, dict) else {}


def read_id(run_dir: Path) -> str | None:
    """The id by which trackers know a run, wherever its directory lies; None for a run that has none."""
    known = read_environment(run_dir).get("id")
    return known if isinstance(known, str) and known.isalnum() else None


def best_checkpoint(run_dir: Path) -> Path:
    """The checkpoint that a run's test result is of.

    Raises:
        UserError: if the run left none.
    """
    if not any((run_dir / name).exists() for name in ("config.yaml", "summary.json", "checkpoints")):
        raise UserError(f"{run_dir} is no run directory: name one, such as runs/<name>/<id>")
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


def expand_multirun(path: Path) -> list[Path]:
    """The run directory itself; of a multirun's directory, its finished runs in the order of their numbers."""
    if not any((path / name).exists() for name in ("multirun.yaml", "study.journal")):
        return [path]
    folders = [one.parent for one in path.glob("*/summary.json")]
    finished = [one for one in folders if (read_summary(one) or {}).get("status") == "finished"]
    return sorted(finished, key=lambda one: (int(one.name) if one.name.isdecimal() else 0, one.name)) or [path]


def checkpoints_of(runs: Sequence[str | Path], checkpoint: str | Path | None) -> list[Path]:
    """The checkpoints that a command names: the best of each run and of each run of a multirun, or a file of its own.

    Raises:
        UserError: if a run has no best checkpoint, or unless one of runs and a checkpoint is given.
    """
    expanded = [found for run in runs for found in expand_multirun(Path(run))]
    if len(expanded) > 1 and checkpoint is None:
        return [best_checkpoint(run) for run in expanded]
    return [checkpoint_of(expanded[0] if expanded else None, checkpoint)]


def checkpoint_of(run: str | Path | None, checkpoint: str | Path | None) -> Path:
    """The checkpoint that a command names: a run's best, or a file of its own.

    Raises:
        UserError: unless one of the two is given.
    """
    if (run is None) == (checkpoint is None):
        raise UserError("name either run=<run directory>, for its best checkpoint, or checkpoint=<file>")
    return best_checkpoint(Path(run)) if run is not None else Path(checkpoint or "")
