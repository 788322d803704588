"""What is typed: taken as it is meant, and answered where it cannot be."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from experiments.config import conf_files, suggestions

OWN_WORDS = re.compile(r"[\w/@.:$-]+")
PATHS = ("hydra.run.dir", "hydra.sweep.dir", "resume", "init_from")  # that only a shell would take ~ for home in
IN_ONE_PIECE = (
    "an override is key=value in one piece: no space around =, quotes around a value with commas, spaces or brackets"
)
TAKING_A_VALUE = {
    "cfg", "c", "package", "p", "config-path", "cp", "config-name", "cn", "config-dir", "cd", "info", "i",
    "experimental-rerun",
}  # fmt: skip


def as_meant(arguments: Sequence[str]) -> list[str]:
    """The overrides, with ``+`` before a key that may be there already, or before a group, as it is meant."""
    meant = []
    for argument in arguments:
        name, _, value = argument.lstrip("+").partition("=")
        group = name.partition("@")[0]
        if name in PATHS and value.startswith("~"):
            argument = f"{name}={os.path.expanduser(value)}"
        if argument.startswith("-"):  # an option of Hydra's
            meant.append(argument)
            continue
        if argument.startswith("~") and _holds_nothing(argument[1:], arguments):
            continue
        if argument == f"{name}={value}" and value.lstrip().startswith("{"):
            argument = f"++{argument}"  # a whole mapping, with keys that the chosen file does not have
        elif argument == f"{name}={value}" and name.endswith("._target_"):
            argument = f"++{argument}"  # where a word or nothing stands
        elif argument.startswith("~") and "none" in conf_files.choices(name.lstrip("~")):
            argument = f"{name.lstrip('~')}=none"  # every run has the group
        elif {"null", "[]"} & {*value.split(",")} and "none" in conf_files.choices(name):
            argument = f"{name}={','.join('none' if one in ('null', '[]') else one for one in value.split(','))}"
        elif argument.startswith("+") and not argument.startswith("++"):
            if not conf_files.is_group(group) or value.lstrip().startswith("{"):
                argument = f"+{argument}"
            elif _in_defaults(name):
                argument = argument[1:]
        meant.append(quoted(argument))
    return meant


@lru_cache(maxsize=256)
def quoted(override: str) -> str:
    """The override, with quotes around a value that Hydra's grammar has no place for: ``data.root=~/photos``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    one_word = not set("[]{},'\"\\\n") & {*value} or (value.startswith("${") and "'" not in value)
    if not equals or not key.strip() or not one_word or value != value.strip():
        return override
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return f"{key}='{value}'"
    return override


def _holds_nothing(key: str, arguments: Sequence[str]) -> bool:
    """Whether a key is there and null, which Hydra cannot delete."""
    from omegaconf import OmegaConf

    from experiments.config.compose import composed

    try:
        config = composed([one for one in overrides_in(arguments) if _is_choice(one) and "," not in one])
    except Exception:  # what is chosen does not compose by itself
        return False
    above = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
    return above is not None and key.rpartition(".")[2] in above and OmegaConf.select(config, key) in (None, {})


def _in_defaults(group: str) -> bool:
    path = conf_files.find("train")
    return path is not None and bool(re.search(rf"^\s*- (optional )?{group}:", path.read_text("utf-8"), re.MULTILINE))


def overrides_in(arguments: Sequence[str]) -> list[str]:
    """The overrides of a command line: no options of Hydra's, nor their values."""
    found = []
    before = ""
    for argument in arguments:
        is_value = before.startswith("-") and before.lstrip("-") in TAKING_A_VALUE and "=" not in argument
        if not argument.startswith("-") and not is_value:
            found.append(argument)
        before = argument
    return found


def is_multirun(arguments: Sequence[str]) -> bool:
    """Whether many runs are asked for."""
    return bool({"-m", "--multirun"} & set(arguments))


def known_keys(chosen: Sequence[str]) -> dict[str, bool]:
    """Every key there is with some choices of groups, and whether it holds a value."""
    from experiments.config.compose import composed

    try:
        config: Any = composed(chosen)
    except Exception:  # what is chosen does not compose by itself
        config = composed([])
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    found = suggestions.leaf_by_key({str(key): value for key, value in plain.items()})
    return {name: holds for name, holds in found.items() if not name.startswith(("hydra.runtime", "hydra.overrides"))}


def explain(error: Exception, arguments: Sequence[str]) -> list[str]:
    """One message for every override that cannot be applied; Hydra's own words where none is found."""
    found = override_mistakes(arguments, unreadable_alone=False)
    return found or [_without_package(error) or " ".join(str(error).split()) or type(error).__name__]


def override_mistakes(arguments: Sequence[str], unreadable_alone: bool = True) -> list[str]:
    """What is wrong with overrides; unknown keys, which take a moment, are looked for beside other mistakes alone."""
    overrides, several = _whole(overrides_in(arguments)), is_multirun(arguments)
    faults = {one: unreadable(one, several) if one in arguments else _taken_apart(one) for one in overrides}
    if unreadable_alone and not any(faults.values()):
        return []
    right = [one for one, fault in faults.items() if not fault]
    keys = known_keys([one for one in right if _is_choice(one) and not (several and "," in one)])
    said = {one: f"{one}: {fault}" if fault else unknown_key(one, keys) for one, fault in faults.items()}
    return [fault for fault in said.values() if fault]


def _is_choice(override: str) -> bool:
    key, equals, _ = override.lstrip("+~").partition("=")
    return bool(equals) and conf_files.is_group(key) and not override.startswith("~")


def _taken_apart(joined: str) -> str:
    key, value = re.split(r":? *= *|:? +", joined, maxsplit=1)
    quoted = f'"{key}={value}"' if set(" [{") & {*value} else f"{key}={value}"
    return f"an override is one piece. Type {quoted}"


def _whole(overrides: Sequence[str]) -> list[str]:
    """The overrides, with those in one that the shell took apart: ``lr = 0.1``, ``betas=[0.9, 0.99]``."""
    whole: list[str] = []
    for one in overrides:
        before = whole[-1] if whole else ""
        open_list = any(before.count(start) > before.count(end) for start, end in ("[]", "{}"))
        bare = before and "=" not in one and ("=" not in before or before.endswith("=")) and before[0] not in "~-"
        if open_list or bare or (one.startswith("=") and "=" not in before and before):
            whole[-1] = f"{before} {one}"
        else:
            whole.append(one)
    return whole


def unreadable(override: str, several: bool) -> str | None:
    """What is wrong with an override as it stands, whatever keys there are; ``several`` runs may be asked for."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = override.lstrip("+~").partition("=")
    if (
        answer := suggestions.moved_keys().get(key.lower())
        if equals and value != "null" and value[:1] != "{"
        else None
    ):
        return answer if " " in answer else f"it belongs to {answer}={value}"
    if not equals and not override.startswith("~"):
        answer = suggestions.names_in_other_tools().get(key.lower(), "")
        return answer if " " in answer else IN_ONE_PIECE
    override = quoted(override)
    if not key.strip():
        return f"no key stands before the =; {IN_ONE_PIECE}"
    try:
        parsed = OverridesParser.create().parse_override(override)
        meant = parsed.value()
    except HydraException:
        if value.startswith("(") and value.endswith(")"):
            return f'a list has square brackets. Type "{key}=[{value[1:-1]}]"'
        return IN_ONE_PIECE
    except Exception as error:
        return str(error)
    if parsed.is_sweep_override() and not several:
        if re.fullmatch(r"[^\[\]{}()'\"]+(,[^\[\]{}()'\"]+)+", value):
            if conf_files.is_group(key):
                return f'commas ask for several runs. Type "{key}=[{value}]" for one, or -m before it'
            return f'commas ask for several runs. Type -m before it, or "{key}=[{value}]" for one with a list'
        return "it asks for several runs. Type -m before it"
    return _wrong_choice(override, key.partition("@")[0], meant)


def _wrong_choice(override: str, group: str, meant: Any) -> str | None:
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString, Sweep

    if group in ("hydra/launcher", "hydra/sweeper") and (override.startswith("~") or meant == []):
        return f"a multirun needs one. Leave it out for the default, or choose by {group}=<name>"
    choices = conf_files.choices(group)
    if meant == [] and choices and override.startswith("~"):
        return f"{group} is chosen by a name: {', '.join(choices)}"
    if (not choices and not group.startswith("hydra/")) or isinstance(meant, dict):
        return None
    named = meant.list if isinstance(meant, ChoiceSweep) else meant if isinstance(meant, list) else [meant]
    for name in (each for one in named for each in (one if isinstance(one, list) else [one])):
        name = name.text if isinstance(name, QuotedString) else name
        if isinstance(name, Sweep) or (name is None and "none" in choices) or (override[0] == "~" and meant is None):
            continue
        if not isinstance(name, str):
            return f"{group} is chosen by a name: {', '.join(choices) or f'{group}=<name>'}"
        if choices and (wrong := suggestions.explain_unknown_choice(group, name)):
            return wrong
    return None


def unknown_key(override: str, keys: Mapping[str, bool]) -> str | None:
    """What is wrong with an override whose key there is not."""
    key, equals, value = override.lstrip("+~").partition("=")
    key = key.partition("@")[0].strip()
    dotted = key.replace("/", ".")
    above = dotted.rpartition(".")[0]
    if override.startswith("+") or dotted in keys or conf_files.is_group(key) or key.startswith("hydra/"):
        return None
    a_mapping = above.startswith("hydra.") and above != "hydra.sweeper" and above in keys
    if a_mapping and equals and not _near(dotted, keys):
        return f"{override}: there is no such key. Type +{override} to add it"
    return f"{override}: {suggestions.explain_unknown_key(dotted, value if equals else None, keys)}"


def _near(key: str, keys: Iterable[str]) -> bool:
    above, _, last = key.rpartition(".")
    beside = [name.rpartition(".")[2] for name in keys if name.rpartition(".")[0] == above]
    return bool(get_close_matches(last, beside, n=1))


def _without_package(error: Exception) -> str | None:
    """A file whose keys stay in its own group: ``model@experiment.model``."""
    found = re.search(r"Could not (?:override|append to|delete)[^']*'[^'@]+@(\w+)\.", str(error))
    if found and conf_files.is_group(found[1]):
        return f"{found[1]}: has conf/{found[1]}/ a file without the line  # @package _global_  ?"
    return None
