"""Find keys that nothing reads, values of the wrong kind or range, and files that are not there."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config import conf_files
from experiments.config.checks.ranges import kind_mismatch, range_mistakes
from experiments.config.checks.sections import GROUPS, LISTS, MUST_BE_THERE, Config, leaves, section, value_at
from experiments.config.checks.sources import arguments_in_conf, read_conf_files
from experiments.config.plain_values import TASKS
from experiments.config.suggestions import leaf_by_key, suggestion_suffix


def values(config: Config, typed: Sequence[str] = ()) -> Iterator[tuple[str, Any, str]]:
    """Keys that nothing reads or that are missing, and values that cannot be what they stand for."""
    files = read_conf_files()
    known, every = files["train.yaml"].content, "\n".join([*(file.text for file in files.values()), *typed])
    keys = [key for key in (*known, *GROUPS, "augment") if key not in ("defaults", "hydra")]
    for key, value in config.items():
        if key not in keys and not re.search(rf"\$\{{([\w.]+:)?{re.escape(key)}\b", every):
            unplaced = f" Does a file of conf/{key}/ lack the line  # @package _global_  ?"
            near = unplaced if conf_files.is_group(key) else suggestion_suffix(key, value, leaf_by_key(config))
            yield key, value, f"is a key that nothing reads.{near}"
        elif key in known and (kind := kind_mismatch(key, value, known[key])):
            yield key, value, f"must be {kind}"
    for key in keys:
        if key not in config and key != "augment":
            yield key, "", "is missing: every run has one, so nothing may take it away (~)"
    net = section(config, "model").get("net")
    if value_at(config, "model._target_") in TASKS and not (isinstance(net, Mapping) and "_target_" in net):
        yield "model.net._target_", "", f"is missing: choose a network, such as model={_choices('model')[0]}"
    for key in ("accelerator", "max_epochs"):
        if isinstance(config.get("trainer"), Mapping) and key not in config["trainer"]:
            yield f"trainer.{key}", "", "is missing: every run has one, so nothing may take it away (~)"
    for group in (*GROUPS, "augment"):
        value = config.get(group)
        if group not in config:
            continue
        if value is None and group in MUST_BE_THERE:
            yield (
                group,
                value,
                f"leaves the run without its {group}: choose one, such as {group}={_choices(group)[0]}",
            )
        elif value is None and group in ("callbacks", "metrics"):
            advice = {"callbacks": "callbacks=minimal keeps checkpoints and progress; a callback that is null is off"}
            yield group, value, f"must be a mapping: {advice.get(group, 'metrics=[] adds none')}"
        elif value is not None and not isinstance(value, Mapping):
            yield group, value, f"must be one of {', '.join(_choices(group))}"
        elif group in MUST_BE_THERE and "_target_" not in (value or {}):
            yield f"{group}._target_", None, f"must name a class: choose one by {group}={_choices(group)[0]}"
        elif group in LISTS:
            for key, part in (value or {}).items():
                if part is not None and not (isinstance(part, Mapping) and "_target_" in part):
                    yield f"{group}.{key}", part, "must be null, which turns it off, or name a class as _target_"
    if "name" in config and config["name"] is None:
        yield "name", None, "must be a name, since a folder below runs gets it: leave it out for <network>-<data>"
    for name, value in config.items():
        yield from range_mistakes(name, value)
    for group in (*GROUPS, "augment"):
        yield from out_of_place(config, group)


def out_of_place(config: Config, group: str) -> Iterator[tuple[str, Any, str]]:
    """Values of a group of the wrong kind or range."""
    for name, value, ours, target in leaves(config.get(group), group):
        if not ours or (group == "data" and name.startswith("data.augment.")):
            continue
        key = name.rpartition(".")[2]
        if kind := kind_mismatch(key, value, arguments_in_conf().get(target, {}).get(key)):
            yield name, value, f"must be {kind}"
        else:
            yield from range_mistakes(name, value, target)


def _choices(group: str) -> list[str]:
    return [choice for choice in conf_files.choices(group) if choice != "custom"]


def files_and_folders(config: Config) -> Iterator[tuple[str, Any, str]]:
    """What is to be read and is not there, or is to be written and cannot be."""
    weights, root, cache = config.get("init_from"), value_at(config, "data.root"), value_at(config, "data.cache")
    new = config.get("resume") is None  # a run that was begun has its weights
    if new and isinstance(weights, str) and not _is(Path.is_file, weights):
        yield "init_from", weights, "is no file: name a state_dict (model.pth) or a checkpoint"
    before, known = value_at(config, "model.net.weights"), ("default", "none")
    ours = value_at(config, "model.net._target_") == "experiments.nets.pretrained"
    if new and ours and isinstance(before, str) and before not in known and not _is(Path.is_file, before):
        yield (
            "model.net.weights",
            before,
            f"is no file: name a state_dict or a checkpoint, or type {' or '.join(known)}",
        )
    if isinstance(root, str):
        if not _is(Path.is_dir, root) and _is(Path.exists, root):
            yield "data.root", root, "is a file: name the folder that data sets lie in"
        elif str(value_at(config, "data._target_")).endswith(".ImageFolder") and not _is(Path.is_dir, root):
            yield "data.root", root, "is not there: name a folder with <class>/ or train/<class>/ in it"
        elif str(value_at(config, "data._target_")).endswith(".ImageFolder") and not _is(_has_folders, root):
            yield "data.root", root, "holds no folder: images belong in <data.root>/<class>/ or train/<class>/ there"
    table = value_at(config, "data.table")
    if isinstance(table, str) and not _is(Path.is_file, table):
        yield "data.table", table, "is no file: name a CSV file with the columns file and label"
    for name, folder in (("data.cache", cache), ("run_dir", config.get("run_dir"))):
        if isinstance(folder, str) and (wrong := _cannot_hold_files(folder)):
            yield name, folder, wrong


def _has_folders(root: Path) -> bool:
    return any(path.is_dir() and path.name[0] != "." for path in root.iterdir())


def _is(test: Callable[[Path], bool], *parts: str) -> bool:
    try:
        return test(Path(*parts).expanduser())
    except (OSError, ValueError, RuntimeError):  # too long a name, a null byte, no such user
        return False


def _cannot_hold_files(folder: str) -> str | None:
    """Why nothing can be written to a folder that is there or is to be made."""
    try:
        path = Path(folder).expanduser().absolute()
        there = next(parent for parent in (path, *path.parents) if parent.exists())
    except (OSError, ValueError, RuntimeError) as error:
        return f"is no folder's name: {getattr(error, 'strerror', None) or error}"
    if not there.is_dir():
        return f"cannot be a folder: {there} is a file"
    return None if os.access(there, os.W_OK | os.X_OK) else f"cannot be written: {there} does not allow it"
