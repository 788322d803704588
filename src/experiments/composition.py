"""Everything about Hydra that must not wait for torch: the run's id, and composing without a command line."""

import copy
import os
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from experiments.config import conf_files
from experiments.config.installation import CONF, command
from experiments.errors import UserError

SYNONYMS = {"learning_rate": "lr", "epochs": "max_epochs", "gpus": "devices"}  # what other frameworks call it
MOST_BYTES = 4 * 2**20
RUN_ID = "EXPERIMENTS_RUN_ID"
RUN_DIR = "<run directory>"
_NO_NAME = re.compile(r"(?i)|null|true|false|nan|[-+]?(inf|[\d._]+(e[-+]?\d+)?)")
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


class _PlainLoader(yaml.SafeLoader):
    """Plain values alone; no aliases, which make a few lines stand for billions."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias, which no run writes")
        return super().compose_node(parent, index)


def read_config(path: Path) -> dict[str, Any]:
    """A config that a run has stored: plain values, not to be built before ``trust.check_config`` has seen them.

    Raises:
        UserError: if the file is missing, damaged or larger than any config is.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} cannot be read: it is larger than {MOST_BYTES:,} bytes, which no config is")
        config = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} is no run directory: it has no config.yaml. Name one, such as runs/<name>/<id>"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no text, or a number beyond all bounds
        raise UserError(f"{path} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
    except RecursionError:
        raise UserError(f"{path} cannot be read: it is nested too deep") from None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise UserError(f"{path} holds no config")
    return config


def wrong_choice(arguments: Sequence[str]) -> str | None:
    """What is wrong with ``<group>=`` and no choice's name, or a list of other things, at which Hydra stumbles."""
    for argument in arguments:
        key, equals, value = argument.lstrip("+~").partition("=")
        group = key.partition("@")[0].strip()
        if equals and not group:
            return f"{argument}: no key stands before the =; type key=value in one piece"
        if group in ("hydra/launcher", "hydra/sweeper") and (argument[0] == "~" or value.replace(" ", "") == "[]"):
            return f"{argument}: a multirun needs one. Leave it out for the default, or choose by {group}=<name>"
        if not equals or not re.fullmatch(r"\w+(/\w+)*", group):
            continue
        choices = conf_files.choices(group)
        if not choices and not group.startswith("hydra/"):
            continue
        if _NO_NAME.fullmatch(value.strip()) or ("[" in value and not _lists_names(argument)):
            return f"{argument}: {group} is chosen by a name: {', '.join(choices) or f'{group}=<name>'}"
    return None


def _lists_names(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return True  # that it cannot be read is Hydra's to tell
    value = parsed.value()
    if not isinstance(value, list):
        return True
    return not parsed.is_delete() and all(isinstance(item, str) and not _NO_NAME.fullmatch(item) for item in value)


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
            stored = read_config(path)
        except UserError:  # damaged: nothing to go on with
            continue
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
    """Make the functions above known to configs, such as ``${run_folder:name,resume}``."""
    OmegaConf.register_new_resolver("command", command, replace=True)
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("hydra_folder", hydra_folder, replace=True)
    OmegaConf.register_new_resolver("job_label", job_label, replace=True)


def compose(*overrides: str) -> dict[str, Any]:
    """Compose a config as ``scripts/train.py`` would, in a notebook or a test: plain values, resolved.

    ``compose("model=cnn", "optimizer.lr=0.01")`` returns what ``experiments.build`` takes.

    Raises:
        UserError: if an override names an unknown group, choice or key; the message lists them.
    """
    register_resolvers()
    conf_files.report_replaced()
    _OWN.clear()  # every composed config is another run's
    if mistake := wrong_choice(overrides):
        raise UserError(mistake)
    try:
        config = _composed(overrides)
    except Exception as error:  # over an override that it did not foresee, Hydra stumbles anywhere
        raise UserError(f"{error or type(error).__name__}{hint(error, overrides)}") from error
    return job_values(config)


def _composed(overrides: Sequence[str]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("train", list(overrides), return_hydra_config=True)


def job_values(config: DictConfig) -> dict[str, Any]:
    """What a job of a composed config, ``hydra`` included, would be given: plain values, resolved.

    Raises:
        UserError: if a value is missing that has no default, or cannot be resolved.
    """
    from hydra.core.hydra_config import HydraConfig

    config = copy.deepcopy(config)
    job, before = HydraConfig.instance(), HydraConfig.instance().cfg
    try:
        job.set_config(config)  # what ${hydra:...} reads
        with read_write(config.hydra), open_dict(config):
            sweeps = str(config.hydra.mode) == "RunMode.MULTIRUN"
            folder = [config.hydra.sweep.dir, config.hydra.sweep.subdir] if sweeps else [config.hydra.run.dir]
            config.hydra.runtime.output_dir = str(Path(*map(str, folder)).absolute())
            job.set_config(config)
            del config["hydra"]
        return plain(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'the config'}: {str(error).splitlines()[0]}") from error
    finally:
        job.cfg = before


def hint(error: Exception, overrides: Sequence[str]) -> str:
    """What may be meant by an override that Hydra refuses: the nearest key or choice there is; or nothing."""
    message = str(error)
    if choice := re.search(r"Could not find '([\w/]+)/([^'/]+)'", message):
        group, wrong = choice.groups()
        return "\n" + did_you_mean(wrong, conf_files.choices(group)).strip()
    if re.search("missing EQUAL|NoViableAlt|no viable alternative|mismatched input|extraneous input", message):
        return (
            "\nAn override is key=value in one piece: no space around =, quotes around a value with commas or spaces"
        )
    if not (key := re.search(r"Could not (?:override|append to|delete)[^']*'([^']+)'", message)):
        return ""
    wrong = key[1].replace("/", ".")
    groups = conf_files.groups()
    own = wrong.partition("@")[2].partition(".")[0]  # model@experiment.model: a file's defaults stay in its own group
    if own in groups:
        return f"\nDoes conf/{own}/ have a file without the line  # @package _global_  ?"
    chosen = [one for one in overrides if (name := one.partition("=")[0]) in groups and name != wrong]
    try:
        known = list(_keys(job_values(_composed(chosen))))
    except Exception:  # what is chosen does not compose by itself
        return ""
    last = wrong.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == last]
    return "\n" + (f"Did you mean {' or '.join(same[:3])}?" if same else did_you_mean(wrong, known).strip())


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


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

    near = [SYNONYMS[wrong]] if SYNONYMS.get(wrong) in known else get_close_matches(wrong, known, n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""
