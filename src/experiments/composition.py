"""Everything about Hydra that must not wait for torch: the run's id, and composing without a command line."""

import os
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from experiments.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
RUN_ID = "EXPERIMENTS_RUN_ID"
RUN_DIR = "<run directory>"
_OWN: dict[str, str] = {}  # the id of this process's run
_FOUND: dict[str, str] = {}  # what resume=auto found


class Mistake(CompactHydraException):
    """A UserError in the form that Hydra prints without a traceback."""


def run_id() -> str:
    """An id that no other run has. Ranks that this process starts inherit it; other children get ids of their own."""
    inherited = os.environ.get(RUN_ID)
    if inherited and "LOCAL_RANK" in os.environ:
        return inherited
    if "id" not in _OWN:
        _OWN["id"] = os.environ[RUN_ID] = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    return _OWN["id"]


def relocated(value: Any, old: str, new: str) -> Any:
    """The same values, with every path below the folder ``old`` now below ``new``, keys included."""
    if isinstance(value, dict):
        return {relocated(key, old, new): relocated(part, old, new) for key, part in value.items()}
    if isinstance(value, list):
        return [relocated(part, old, new) for part in value]
    if isinstance(value, str) and (value == old or old + os.sep in value):
        return value.replace(old, new)
    return value


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


def missing_run(arguments: Sequence[str]) -> str | None:
    """What is wrong with a ``resume=`` on the command line, said before Hydra writes into a folder of that name."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        value = value.strip("'\"")
        if key == "resume" and value not in ("auto", "null"):
            if {"-m", "--multirun"} & set(arguments):
                return f"{argument} goes on with one run: leave out -m"
            if not Path(value).exists() or not (run_of(value) / "config.yaml").exists():
                return f"{argument}: there is no such run directory, or checkpoint in one"
    return None


def newest_unfinished(name: str, config: DictConfig) -> Path | None:
    """The newest run of this name and config that has no summary yet and that no process works on."""
    composed = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    with open_dict(composed):
        composed.run_dir = RUN_DIR
    ours = plain(composed)
    for path in sorted(Path("runs", name).glob("*/config.yaml"), reverse=True):
        if (path.parent / "summary.json").exists() or is_locked(path.parent):
            continue
        stored = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(stored, dict)
        theirs = relocated(stored, str(stored.get("run_dir")), RUN_DIR)
        if {**theirs, "resume": None} == {**ours, "resume": None}:
            return path.parent
    return None


def lock(folder: Path) -> FileLock:
    """The lock that a process holds while it works in a run directory; the system frees it when the process ends."""
    return FileLock(folder / ".lock")


def is_locked(folder: Path) -> bool:
    """Whether a living process works in a run directory."""
    try:
        with lock(folder).acquire(timeout=0):
            return False
    except (Timeout, OSError):
        return True


def hydra_folder(resume: str | None) -> str | None:
    """Where Hydra keeps its own files: nowhere for a resumed run, whose first ones stay."""
    return None if resume else ".hydra"


def register_resolvers() -> None:
    """Make ``${run_id:}``, ``${run_folder:name,resume}`` and ``${hydra_folder:resume}`` known to configs."""
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("hydra_folder", hydra_folder, replace=True)


def compose(*overrides: str) -> dict[str, Any]:
    """Compose a config as ``scripts/train.py`` would, in a notebook or a test: plain values, resolved.

    ``compose("model=cnn", "optimizer.lr=0.01")`` returns what ``experiments.build`` takes.

    Raises:
        UserError: if an override names an unknown group, choice or key; the message lists them.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException

    register_resolvers()
    _OWN.clear()  # every composed config is another run's
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra_compose("train", list(overrides), return_hydra_config=True)
    except HydraException as error:
        raise UserError(str(error)) from error
    job, before = HydraConfig.instance(), HydraConfig.instance().cfg
    try:
        job.set_config(config)  # what ${hydra:...} reads
        with read_write(config.hydra), open_dict(config):
            config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
            job.set_config(config)
            del config["hydra"]
        return plain(config)
    finally:
        job.cfg = before


def plain(config: Any) -> dict[str, Any]:
    """A composed config as plain, resolved values.

    Raises:
        UserError: if a value is missing that has no default, or cannot be resolved.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{', '.join(missing)} must be given, as key=value")
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'the config'}: {str(error).splitlines()[0]}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """``wrong``'s nearest neighbours as a question, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(wrong, known, n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""
