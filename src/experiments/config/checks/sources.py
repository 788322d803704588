"""Read the YAML files, and find in which of their lines a value was given."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from experiments.config import conf_files
from experiments.config.checks.ranges import kind_of
from experiments.config.installation import CONF

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


#: Groups whose files stand at the end of train.yaml's defaults list, in its order.
OVERRIDING = ("experiment", "sweep", "debug", "local")


class ConfFile(NamedTuple):
    """A file of a conf folder, as it was read."""

    path: Path
    text: str
    content: Any


def read_conf_files() -> dict[str, ConfFile]:
    """Every file that there is to choose, by names such as ``model/mlp.yaml``; those that override others first."""
    return _read_conf_files(tuple(conf_files.folders()))


@lru_cache(maxsize=1)
def _read_conf_files(folders: tuple[Path, ...]) -> dict[str, ConfFile]:
    rank = {group: number for number, group in enumerate(reversed(OVERRIDING))}
    paths = conf_files.every_file()
    files = {}
    for name in sorted(paths, key=lambda name: (rank.get(PurePosixPath(name).parts[0], len(rank)), name)):
        try:
            text = paths[name].read_text(encoding="utf-8")
            files[name] = ConfFile(paths[name], text, yaml.load(text, _Loader))
        except (OSError, ValueError, yaml.YAMLError):  # Hydra will say so, if it is used
            continue
    return files


def arguments_in_conf() -> dict[str, dict[str, Any]]:
    """For every ``_target_`` under conf, its keys and their values there."""
    return _arguments_in_conf(tuple(conf_files.folders()))


@lru_cache(maxsize=1)
def _arguments_in_conf(folders: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    arguments_by_target: dict[str, dict[str, Any]] = {}

    def collect(content: Any) -> None:
        if isinstance(content, dict):
            if isinstance(content.get("_target_"), str):
                arguments = arguments_by_target.setdefault(content["_target_"], {})
                arguments |= {key: value for key, value in content.items() if arguments.get(key) is None}
            for value in content.values():
                collect(value)

    for file in _read_conf_files(folders).values():
        collect(file.content)
    return arguments_by_target


def selected_files(overrides: Sequence[str]) -> list[str]:
    """The names of the files that a config is composed of, those that override others last.

    Follows the defaults list of ``train.yaml``, the choices typed as overrides, and the lists of what they choose.
    """
    files = read_conf_files()
    selected: dict[str, list[str]] = {}  # the files of each group

    def select(group: str, options: Any) -> None:
        listed = options if isinstance(options, list) else [options]
        selected[group] = [f"{group}/{option}.yaml" for option in listed if f"{group}/{option}.yaml" in files]
        for name in list(selected[group]):
            follow(name, group)

    def follow(name: str, group: str = "") -> None:
        content = files[name].content
        for entry in (content.get("defaults") or []) if isinstance(content, dict) else []:
            if isinstance(entry, dict):
                for key, options in entry.items():
                    other = key.removeprefix("override ").removeprefix("optional ").strip().partition("@")[0]
                    select(other[1:] if other.startswith("/") else f"{group}/{other}".strip("/"), options)
            elif f"{group}/{entry}.yaml" in files:
                selected[group].insert(0, f"{group}/{entry}.yaml")

    follow("train.yaml")
    for override in overrides:
        group, _, options = override.partition("=")
        group = group.lstrip("+").partition("@")[0]
        if conf_files.is_group(group):
            select(group, [option.strip() for option in options.strip("[]").split(",")])
    names = [name for names in selected.values() for name in names]
    overriding = [name for name in names if PurePosixPath(name).parts[0] in OVERRIDING]
    return ["train.yaml", *(name for name in names if name not in overriding), *overriding]


def origin_of(key: str, value: Any, overrides: Sequence[str]) -> str:
    """Where a config's value was given: on the command line, or in which line of which file; empty if unknown."""
    for override in overrides:
        typed_key = override.partition("=")[0].lstrip("+~").replace("/", ".").partition("@")[0]
        if conf_files.is_group(typed_key) and key != typed_key:  # a choice, not the value itself
            continue
        if f"{key}.".startswith(f"{typed_key}.") or f"{typed_key}.".startswith(f"{key}."):
            return "command line"
    files = read_conf_files()
    for name in reversed(selected_files(overrides)):
        file = files[name]
        group = PurePosixPath(name).parent.parts
        package = () if "@package _global_" in file.text else group
        path = key.split(".")
        if tuple(path[: len(package)]) == package and (keys := path[len(package) :]):
            line = _line_that_sets(yaml.compose(file.text, Loader=_Loader), keys, value)
            if line is not None:
                is_ours = file.path.is_relative_to(CONF)
                return f"{f'conf/{name}' if is_ours else file.path}:{line}"
    return ""


def _line_that_sets(node: Any, keys: Sequence[str], value: Any) -> int | None:
    """The line where a YAML node sets nested keys to a value."""
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.value == keys[0]:
                if len(keys) > 1:
                    return _line_that_sets(value_node, keys[1:], value)
                value_in_file = yaml.load(yaml.serialize(value_node), _Loader)
                is_it = value_in_file == value or kind_of(value) == "mapping"
                return key_node.start_mark.line + 1 if is_it else None
    return None
