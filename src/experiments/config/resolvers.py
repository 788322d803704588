"""What ``${...}`` in the YAML files calls: a run's id and directory, and which run ``resume=`` names."""

import os
import re
import secrets
import sys
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from experiments.config.hydra_internals import register_resolver
from experiments.config.installation import command
from experiments.config.plain_values import plain
from experiments.errors import UserError
from experiments.runs.files import is_locked, relocate_paths
from experiments.runs.run_directory import read_config

RUN_ID = "EXPERIMENTS_RUN_ID"
RUN_DIR = "<run directory>"
_OWN: dict[str, str] = {}  # the id of this process's run
_FOUND: dict[str, str] = {}  # what resume=auto found


def run_id() -> str:
    """An id that no other run has. Ranks that this process starts inherit it; other children get ids of their own."""
    inherited = os.environ.get(RUN_ID)
    if inherited and "LOCAL_RANK" in os.environ:
        return inherited
    if "id" not in _OWN:
        _OWN["id"] = os.environ[RUN_ID] = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    return _OWN["id"]


def forget_run_id() -> None:
    """Let what is composed next be another run."""
    _OWN.clear()


def run_folder(name: str, resume: str | None, *, _root_: DictConfig) -> str:
    """The folder a run works in: a new one, or that of the run that ``resume`` names."""
    fresh = f"runs/{name}/{run_id()}"
    if resume is None:
        return fresh
    if resume == "auto":  # once found it stays: a run that is worked on is no longer free to be found
        if fresh not in _FOUND:
            _FOUND[fresh] = str(newest_unfinished(name, _root_) or fresh)
        return _FOUND[fresh]
    return str(run_of(resume))


def run_of(resume: str) -> Path:
    """The run directory that is named, or that a named checkpoint lies in."""
    path = Path(resume)
    return path.absolute().parent.parent if path.suffix == ".ckpt" else path


def newest_unfinished(name: str, config: DictConfig) -> Path | None:
    """The newest run of this name and config that has no summary yet and that no process works on."""
    composed = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    with open_dict(composed):
        composed.run_dir = RUN_DIR
    ours = plain(composed)
    for path in sorted(Path("runs", name).glob("*/config.yaml"), reverse=True):
        if (path.parent / "summary.json").exists() or is_locked(path.parent):
            continue
        try:
            stored = read_config(path.parent)
        except UserError:  # damaged: nothing to go on with
            continue
        theirs = relocate_paths(stored, str(stored.get("run_dir")), RUN_DIR)
        if {**theirs, "resume": None} == {**ours, "resume": None}:
            return path.parent
    return None


def hydra_folder(resume: str | None, *, _root_: DictConfig) -> str | None:
    """Where Hydra keeps its own files: nowhere for a resumed run, whose first ones stay."""
    return None if resume and Path(_root_.hydra.run.dir, "config.yaml").exists() else ".hydra"


def job_label() -> str | None:
    """What was varied to make this job of a multirun, as a folder's name; nothing for a run of its own."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    fixed = [argument.lower() for argument in sys.argv]  # Hydra writes true as True
    varied = [each for each in HydraConfig.get().overrides.task if each.lower() not in fixed]
    return re.sub(r"[^\w.,=+-]", "_", ",".join(varied))[:100].rstrip(". ") or None


def register_resolvers() -> None:
    """Make the functions above known to configs, such as ``${experiments.run_folder:name,resume}``."""
    register_resolver("experiments.command", command)
    register_resolver("experiments.run_id", run_id, use_cache=True)
    register_resolver("experiments.run_folder", run_folder)
    register_resolver("experiments.hydra_folder", hydra_folder)
    register_resolver("experiments.job_label", job_label)
