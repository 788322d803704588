"""What is typed: taken as it is meant, and answered where it cannot be."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config import conf_files
from experiments.config.suggestions import choice_mistake, elsewhere, key_mistake, synonyms

OWN_WORDS = re.compile(r"[\w/@.:$-]+")
IN_ONE_PIECE = (
    "an override is key=value in one piece: no space around =, quotes around a value with commas, spaces or brackets"
)
HYDRA_FLAGS = {
    "help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion",
    "config-path", "config-name", "config-dir", "experimental-rerun", "info",
}  # fmt: skip


def as_meant(arguments: Sequence[str]) -> list[str]:
    """The overrides, with ``+`` before a key that may be there already, or before a group, as it is meant."""
    meant = []
    for argument in arguments:
        name, _, value = argument.lstrip("+").partition("=")
        if argument == f"{name}={value}" and conf_files.is_group(name) and value.lstrip().startswith("{"):
            argument = f"++{argument}"  # a whole mapping, with keys that the chosen file does not have
        elif value == "null" and conf_files.is_group(name) and "none" in conf_files.choices(name):
            argument = f"{name}=none"
        elif argument.startswith("+") and not argument.startswith("++"):
            argument = argument[1:] if conf_files.is_group(name) and _in_defaults(name) else f"+{argument}"
        meant.append(argument)
    return meant


def _in_defaults(group: str) -> bool:
    path = conf_files.find("train")
    return path is not None and bool(re.search(rf"^\s*- (optional )?{group}:", path.read_text("utf-8"), re.MULTILINE))


def is_multirun(arguments: Sequence[str]) -> bool:
    """Whether many runs are asked for."""
    return bool({"-m", "--multirun"} & set(arguments))


def dashed_mistake(arguments: Sequence[str]) -> str | None:
    """What is wrong with an option that is typed as other tools have it: ``--lr 0.1``."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if not re.fullmatch(r"--?[A-Za-z][\w.-]*", argument.partition("=")[0]) or name in HYDRA_FLAGS:
            continue
        if len(argument.partition("=")[0]) - len(name) == 1:  # one dash: Hydra's -m, -c job, -cn name, and its kind
            continue
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        if not equals and following and not following.startswith("-") and "=" not in following:
            value = following
        name = name.replace("-", "_")
        said = f"{argument} {value}".strip() if not equals else argument
        group_or_key = conf_files.is_group(name.partition(".")[0]) or name in top_keys()
        typed = f"{name}={value or '...'}"
        if group_or_key:
            return f"{said}: options take no dashes here. Type {typed}"
        answer = synonyms().get(name.lower(), synonyms().get(name.lower().rpartition(".")[2]))
        if answer is None and name.startswith("no_"):
            answer = f"type {name[3:]}=false"
        if answer is None:
            wrong = key_mistake(name, value or "...", known_keys([])).removeprefix("there is no such key. ")
            return f"{said}: options take no dashes here. {wrong}"
        is_key = " " not in answer and "=" not in answer
        meant = f"Type {answer}={value or '...'}" if is_key else answer[:1].upper() + answer[1:]
        return f"{said}: options take no dashes here. {meant}"
    return None


def top_keys() -> list[str]:
    """The keys of the whole experiment."""
    import yaml

    path = conf_files.find("train")
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path else {}
    return [key for key in content if key not in ("defaults", "hydra")]


def known_keys(chosen: Sequence[str]) -> dict[str, bool]:
    """Every key there is with some choices of groups, and whether it holds a value."""
    from experiments.config.compose import composed
    from experiments.config.suggestions import keys_of

    try:
        config: Any = composed(chosen)
    except Exception:  # what is chosen does not compose by itself
        config = composed([])
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return keys_of({str(key): value for key, value in plain.items()})


def explain(error: Exception, arguments: Sequence[str]) -> list[str]:
    """One message for every override that cannot be applied; Hydra's own words where none is found."""
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    several = is_multirun(arguments)
    found = [wrong for one in overrides if (wrong := unreadable(one, several))]
    if not found:
        chosen = [one for one in overrides if _is_choice(one) and not several]
        keys = known_keys(chosen)
        found = [wrong for one in overrides if (wrong := unknown_key(one, keys))]
    own = [file for file in [_without_package(error)] if file]
    return found or own or [" ".join(str(error).split()) or type(error).__name__]


def _is_choice(override: str) -> bool:
    key, equals, _ = override.lstrip("+~").partition("=")
    return bool(equals) and conf_files.is_group(key) and not override.startswith("~")


def unreadable(override: str, several: bool) -> str | None:
    """What is wrong with an override as it stands, whatever keys there are."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep
    from hydra.errors import HydraException

    key, equals, value = override.lstrip("+~").partition("=")
    if not equals and not override.startswith("~"):
        answer = synonyms().get(key.lower())
        return f"{override}: {answer}" if answer and " " in answer else f"{override}: {IN_ONE_PIECE}"
    try:
        parsed = OverridesParser.create().parse_override(override)
        parsed.value()
    except HydraException:
        return f"{override}: {IN_ONE_PIECE}"
    except Exception as error:
        return f"{override}: {error}"
    if isinstance(parsed.value(), ChoiceSweep) or (parsed.is_sweep_override() and "," in value):
        if not several and parsed.is_sweep_override():
            if re.fullmatch(r"[^\[\]{}()'\"]+(,[^\[\]{}()'\"]+)+", value):
                return f'{override}: commas ask for several runs. Type "{key}=[{value}]" for one, or -m before it'
            return f"{override}: this asks for several runs. Type -m before it"
    elif parsed.is_sweep_override() and not several:
        return f"{override}: this asks for several runs. Type -m before it"
    if conf_files.is_group(key) and conf_files.choices(key) and not override.startswith("~"):
        value_now = parsed.value()
        names = value_now if isinstance(value_now, list) else [value_now]
        if isinstance(value_now, ChoiceSweep):
            names = list(value_now.list)
        for name in names:
            for one in name if isinstance(name, list) else [name]:
                if isinstance(one, str) and (wrong := choice_mistake(key, one)):
                    return f"{override}: {wrong}"
    return None


def misplaced(override: str) -> str | None:
    """What to type instead of a key whose place is another."""
    key, equals, value = override.lstrip("+~").partition("=")
    answer = elsewhere().get(key.lower()) if equals and value != "null" else None
    return answer and f"{override}: {answer if ' ' in answer else f'it belongs to {answer}={value}'}"


def unknown_key(override: str, keys: Mapping[str, bool]) -> str | None:
    """What is wrong with an override whose key there is not."""
    key, equals, value = override.lstrip("+~").partition("=")
    key = key.partition("@")[0].strip()
    dotted = key.replace("/", ".")
    if override.startswith("+") or dotted in keys or conf_files.is_group(key) or key.startswith("hydra/"):
        return None
    return f"{override}: {key_mistake(dotted, value if equals else None, keys)}"


def _without_package(error: Exception) -> str | None:
    """A file whose keys stay in its own group: ``model@experiment.model``."""
    found = re.search(r"Could not (?:override|append to|delete)[^']*'[^'@]+@(\w+)\.", str(error))
    if found and conf_files.is_group(found[1]):
        return f"{found[1]}: has conf/{found[1]}/ a file without the line  # @package _global_  ?"
    return None
