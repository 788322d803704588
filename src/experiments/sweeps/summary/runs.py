"""Read the runs of a folder, and find what varied between them.

Runs that are under way, were interrupted or failed are read too.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from experiments.errors import UserError
from experiments.runs.files import is_locked

ORDER = ("finished", "pruned", "running", "interrupted", "failed")
NOT_VARIED = ("test", "resume", "trust", "hydra", "run_dir", "sweep", "tags", "note")
RESULTS = ("val/accuracy", "test/accuracy", "epochs", "train_seconds")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Run:
    """One run as it can be read now."""

    name: str  # its directory, below the folder that is summarized
    status: str
    summary: dict[str, Any]
    overrides: list[str]
    config: dict[str, Any]
    choices: dict[str, Any]
    directory: Path = Path()
    varied: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str) -> Any:
        """The value of a key or a group: what was typed, or else what held without."""
        if key in self.choices:
            return self.choices[key]
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None or isinstance(value, Mapping):  # a choice that nobody noted
            typed = dict(split(override) for override in self.overrides)
            return typed.get(key)
        return value

    def value(self, name: str) -> Any:
        """What a run's column shows: its name or status, a result, or the value of a key or a group."""
        if name in ("run", "status"):
            return self.name if name == "run" else self.status
        return self.summary[name] if name in self.summary else self.get(name)


def objective(runs: Iterable[Run]) -> tuple[str, bool]:
    """What runs monitor, the first of them where they differ, and whether less of it is better."""
    config = next((run.config for run in runs if "monitor" in run.config), {})
    return str(config.get("monitor", "val/accuracy")), config.get("mode") == "min"


def split(override: str) -> tuple[str, str]:
    """Key and value of what was typed."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def read(path: Path, missing: Any) -> Any:
    """A YAML or JSON file; ``missing`` if it is not there, is half of one, or holds anything else."""
    try:
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else yaml.load(text, _LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return missing
    return found if isinstance(found, type(missing)) else missing


def runs_in(folder: str | Path) -> list[Run]:
    """Every run below a folder, with what varied between them.

    Raises:
        UserError: if there is none.
    """
    folder = Path(folder)
    found = {path.parent for name in ("config.yaml", "summary.json") for path in folder.rglob(name)}
    directories = sorted(path for path in found if path.name != ".hydra")
    if not directories:
        raise UserError(f"there are no runs in {folder}: name a folder with run directories, such as runs=runs")
    runs = []
    for path in directories:
        summary = read(path / "summary.json", {})
        damaged = "unreadable" if not summary and (path / "summary.json").exists() else None
        hydra = read(path / ".hydra" / "hydra.yaml", {}).get("hydra", {})
        overrides = read(path / "overrides.yaml", read(path / ".hydra" / "overrides.yaml", []))
        runs.append(
            Run(
                name=os.path.relpath(path, folder),
                status=str(summary.get("status") or damaged or ("running" if is_locked(path) else "interrupted")),
                summary=summary,
                overrides=[one for one in overrides if isinstance(one, str)],
                config=read(path / "config.yaml", {}),
                choices=hydra.get("runtime", {}).get("choices", {}),
                directory=path,
            )
        )
    for key in dict.fromkeys(split(override)[0] for run in runs for override in run.overrides):
        values = [run.get(key) for run in runs]
        if key.partition(".")[0].partition("/")[0] not in NOT_VARIED and len({str(value) for value in values}) > 1:
            for run, value in zip(runs, values, strict=True):
                run.varied[key] = value
    return runs
