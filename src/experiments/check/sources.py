"""What the YAML files say, and in which of their lines a value was given."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from experiments.check.rules import family
from experiments.composition import CONF

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@lru_cache(maxsize=1)
def files() -> dict[Path, tuple[str, Any]]:
    """Text and content of every file under conf, the most particular first."""
    rank = {name: number for number, name in enumerate(("local", "debug", "experiment"))}
    found = {}
    for path in sorted(
        CONF.rglob("*.yaml"), key=lambda path: (rank.get(path.parent.name, 3), path == CONF / "train.yaml")
    ):
        try:
            text = path.read_text(encoding="utf-8")
            found[path] = text, yaml.load(text, _Loader)
        except (OSError, ValueError, yaml.YAMLError):  # Hydra will say so, if it is used
            continue
    return found


@lru_cache(maxsize=1)
def defaults() -> dict[str, dict[str, Any]]:
    """For every ``_target_`` under conf, its keys and their values there."""
    found: dict[str, dict[str, Any]] = {}

    def gather(content: Any) -> None:
        if isinstance(content, dict):
            if isinstance(content.get("_target_"), str):
                known = found.setdefault(content["_target_"], {})
                known |= {key: value for key, value in content.items() if known.get(key) is None}
            for value in content.values():
                gather(value)

    for _, content in files().values():
        gather(content)
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
    for entry in files()[CONF / "train.yaml"][1]["defaults"]:
        if isinstance(entry, dict):
            yield from ((group, str(choice)) for group, choice in entry.items())
    for override in typed:
        group, _, choices = override.partition("=")
        yield from ((group, choice.strip()) for choice in choices.strip("[]").split(","))


def place(name: str, value: Any, typed: Sequence[str]) -> str:
    """Where a config's value was given: on the command line, or in which line of which file."""
    for override in typed:
        key = override.partition("=")[0].lstrip("+~").replace("/", ".").partition("@")[0]
        if (CONF / key).is_dir() and name != key:  # a choice, not the value itself
            continue
        if f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}."):
            return "command line"
    chosen = {(group, choice): -number for number, (group, choice) in enumerate(_chosen(typed))}
    for path, (text, _) in sorted(
        files().items(), key=lambda file: chosen.get((file[0].parent.name, file[0].stem), 1)
    ):
        package = () if "@package _global_" in text or path.parent == CONF else (path.parent.name,)
        parts = name.split(".")
        if tuple(parts[: len(package)]) == package and (keys := parts[len(package) :]):
            line = _line(yaml.compose(text, Loader=_Loader), keys, value)
            if line is not None:
                return f"conf/{path.relative_to(CONF).as_posix()}:{line}"
    return ""
