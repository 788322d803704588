"""Read the YAML files, and find in which of their lines a value was given."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from experiments.config import conf_files
from experiments.config.checks.ranges import family
from experiments.config.installation import CONF

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ConfFile(NamedTuple):
    """A file of a conf folder, as it was read."""

    path: Path
    text: str
    content: Any


def files() -> dict[str, ConfFile]:
    """Every file that there is to choose, by names such as ``model/mlp.yaml``, the most particular first."""
    return _files(tuple(conf_files.folders()))


@lru_cache(maxsize=1)
def _files(folders: tuple[Path, ...]) -> dict[str, ConfFile]:
    rank = {name: number for number, name in enumerate(("local", "debug", "experiment"))}
    every = conf_files.every_file()
    found = {}
    for name in sorted(every, key=lambda name: (rank.get(_group_and_choice(name)[0], 3), name == "train.yaml", name)):
        try:
            text = every[name].read_text(encoding="utf-8")
            found[name] = ConfFile(every[name], text, yaml.load(text, _Loader))
        except (OSError, ValueError, yaml.YAMLError):  # Hydra will say so, if it is used
            continue
    return found


def defaults() -> dict[str, dict[str, Any]]:
    """For every ``_target_`` under conf, its keys and their values there."""
    return _defaults(tuple(conf_files.folders()))


@lru_cache(maxsize=1)
def _defaults(folders: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def gather(content: Any) -> None:
        if isinstance(content, dict):
            if isinstance(content.get("_target_"), str):
                known = found.setdefault(content["_target_"], {})
                known |= {key: value for key, value in content.items() if known.get(key) is None}
            for value in content.values():
                gather(value)

    for file in _files(folders).values():
        gather(file.content)
    return found


def _line(node: Any, path: Sequence[str], value: Any) -> int | None:
    """The line where a YAML node sets ``path`` to ``value``."""
    if isinstance(node, yaml.MappingNode):
        for key, below in node.value:
            if key.value == path[0]:
                if len(path) > 1:
                    return _line(below, path[1:], value)
                said = yaml.load(yaml.serialize(below), _Loader)
                return key.start_mark.line + 1 if said == value or family(value) == "mapping" else None
    return None


def _chosen(typed: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The choices of groups that were typed or stand in the defaults list, those that rule last at the end."""
    for entry in files()["train.yaml"].content["defaults"]:
        if isinstance(entry, dict):
            yield from ((group, str(choice)) for group, choice in entry.items())
    for override in typed:
        group, _, choices = override.partition("=")
        yield from ((group, choice.strip()) for choice in choices.strip("[]").split(","))


def place(name: str, value: Any, typed: Sequence[str]) -> str:
    """Where a config's value was given: on the command line, or in which line of which file."""
    for override in typed:
        key = override.partition("=")[0].lstrip("+~").replace("/", ".").partition("@")[0]
        if conf_files.is_group(key) and name != key:  # a choice, not the value itself
            continue
        if f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}."):
            return "command line"
    chosen = {(group, choice): -number for number, (group, choice) in enumerate(_chosen(typed))}
    for file_name, file in sorted(files().items(), key=lambda item: chosen.get(_group_and_choice(item[0]), 1)):
        group, _ = _group_and_choice(file_name)
        package = () if "@package _global_" in file.text or not group else (group,)
        parts = name.split(".")
        if tuple(parts[: len(package)]) == package and (keys := parts[len(package) :]):
            line = _line(yaml.compose(file.text, Loader=_Loader), keys, value)
            if line is not None:
                is_ours = file.path.is_relative_to(CONF)
                return f"{f'conf/{file_name}' if is_ours else file.path}:{line}"
    return ""


def _group_and_choice(file_name: str) -> tuple[str, str]:
    """The innermost group and the choice that a file such as ``model/mlp.yaml`` is; no group for ``train.yaml``."""
    path = PurePosixPath(file_name)
    return path.parent.name, path.stem
