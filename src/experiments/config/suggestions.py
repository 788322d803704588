"""Say what may be meant by an override that cannot be applied: by its case, place, other tools' words, spelling."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import yaml

from experiments.config import conf_files
from experiments.config.checks.sources import files

MAX_SUGGESTIONS = 8


def synonyms() -> dict[str, str]:
    """What other tools call it, normalised, and what to type here."""
    return _table()["synonyms"]


def elsewhere() -> dict[str, str]:
    """Keys whose place is another, and what to type there."""
    return _table()["elsewhere"]


@lru_cache
def _table() -> dict[str, dict[str, str]]:
    content = yaml.safe_load(Path(__file__).with_name("synonyms.yaml").read_text(encoding="utf-8"))
    return {part: {_plain(str(name)): answer for name, answer in names.items()} for part, names in content.items()}


def _plain(name: str) -> str:
    """A name without letter case and the marks that words are joined with; of a choice, both sides alike."""
    key, equals, choice = name.lower().replace("-", "_").partition("=")
    return key + equals + choice.replace("_", "")


def choice_mistake(group: str, choice: str) -> str | None:
    """What to type instead of a choice that a group does not have."""
    choices = conf_files.choices(group)
    if not choices or choice in choices:
        return None
    plain = {_plain(f"x={known}"): known for known in choices}
    last = choice.rpartition(".")[2]  # of torch.optim.SGD
    for name in (choice, last, *(last.lower().removesuffix(end) for end in (group, "datamodule", "dataset"))):
        if (same := plain.get(_plain(f"x={name}"))) is not None:
            return f"there is no such choice. Type {group}={same}"
        if (answer := synonyms().get(_plain(f"{group}={name}"))) is not None:
            return f"there is no such choice. Type {answer}" if "=" in answer.split()[0] else answer
    if group == "data" and choice.startswith((".", "/", "~")):
        return f"there is no such choice. Type data=image_folder data.root={choice}"
    near = get_close_matches(choice.lower(), choices, n=3)
    listed = ", ".join([*near, *(known for known in choices if known not in near)])
    own = f"; another class by {group}._target_=<import path>" if group in ("optimizer", "scheduler", "loss") else ""
    return f"there is no such choice.{_did_you_mean(f'{group}={one}' for one in near)} There are {listed}{own}"


def key_mistake(key: str, value: str | None, known: Mapping[str, bool]) -> str:
    """What to type instead of a key that does not exist; of the ``known`` ones, whether they hold a value."""
    typed = "" if value is None else f"={value}"
    lower: dict[str, list[str]] = {}
    for name in sorted(known, key=lambda name: not known[name]):
        lower.setdefault(name.lower().replace("-", "_"), []).append(name)
    words = key.lower().replace("-", "_").split(".")
    group = words[0]

    def meant(names: Iterable[str]) -> str:
        return f"there is no such key.{_did_you_mean(f'{name}{typed}' for name in dict.fromkeys(names))}"

    if same := lower.get(".".join(words)):
        return meant(same)
    if len(words) == 2 and words[1] in ("name", "type", "class_name") and conf_files.is_group(group):
        return _answer(group, typed, known)
    if len(words) > 1 and (answer := elsewhere().get(".".join(words)) or synonyms().get(".".join(words))):
        return _answer(answer, typed, known)
    if own := [name for low, names in lower.items() if low.startswith(f"{group}.") for name in names]:
        ends = [name for name in own if known[name] and name.lower().rpartition(".")[2] == words[-1]]
        if ends:
            return meant(ends)
    others = {} if group == "hydra" else keys_of_choices(group)
    tail = ".".join(words[1:])
    if having := others.get(tail):
        takes = [name.partition(".")[2] for name in own if name.count(".") == len(words) - 1 and known[name]]
        several = group in ("callbacks", "logger", "metrics", "augment")  # whose choices go together
        if several:
            listed = ["default"] * (group == "callbacks") + [having[0].partition("=")[2]]
            return f"the chosen {group} have no such key. Add {group}=[{','.join(listed)}] to have it"
        return (
            f"the chosen {group} has no such key, it takes {', '.join(takes)}. Type {' or '.join(having)} to have it"
        )
    for count in range(len(words), 0, -1):  # the longest end that some key has
        tail = "." + ".".join(words[-count:])
        found = [name for low, names in lower.items() if f".{low}".endswith(tail) for name in names]
        if values := [name for name in found if known[name]]:
            return meant(values)
        if found and words[-1] not in synonyms():
            return meant(found)
    if answer := synonyms().get(words[-1]):
        return _answer(answer, typed, known)
    if near := get_close_matches(words[-1], [name.lower().rpartition(".")[2] for name in own], n=3, cutoff=0.75):
        return meant(name for end in near for name in own if name.lower().rpartition(".")[2] == end)
    if near := get_close_matches(tail, list(others), n=1, cutoff=0.8):
        return f"the chosen {group} has no such key. Type {group}.{near[0]} with {' or '.join(others[near[0]])}"
    near = get_close_matches(".".join(words), list(lower), n=3, cutoff=0.8)
    last: dict[str, list[str]] = {}
    for low in lower:
        last.setdefault(low.rpartition(".")[2], []).append(low)
    near += [low for end in get_close_matches(words[-1], list(last), n=2, cutoff=0.8) for low in last[end]]
    if near:
        return meant(name for low in near for name in lower[low])
    if beside := [name for name in own if name.count(".") == max(1, len(words) - 1)]:
        return f"there is no such key. There are {', '.join(beside)}"
    return "there is no such key. --help lists the groups, --cfg job every key; +key=value adds one of your own"


def meant_key(key: str, value: object, known: Mapping[str, bool]) -> str:
    """The same as the end of another sentence; nothing where nothing is near."""
    others = {name: holds for name, holds in known.items() if name != key}
    typed = None if isinstance(value, Mapping) else str(value)
    said = key_mistake(key, typed, others).removeprefix("there is no such key").lstrip(". ")
    return "" if said.startswith(("--help", "There are")) else f" {said[:1].upper()}{said[1:]}"


def _answer(answer: str, typed: str, known: Iterable[str]) -> str:
    if " " in answer or "=" in answer:
        return answer
    if conf_files.is_group(answer):
        wrong = choice_mistake(answer, typed.removeprefix("="))
        return f"there is no such key. Type {answer}{typed}" if wrong is None else f"the key is {answer}, and {wrong}"
    own = answer in known or answer.startswith("hydra.") or "." not in answer
    elsewhere = "" if own else ", with another choice of the group"
    return f"there is no such key. Type {answer}{typed}{elsewhere}"


def _did_you_mean(names: Iterable[str]) -> str:
    listed = list(names)[:MAX_SUGGESTIONS]
    return f" Did you mean {' or '.join(listed)}?" if listed else ""


def keys_of_choices(group: str) -> dict[str, list[str]]:
    """For every key in the files of a group, in lower case, the choices that have it, as one would type them."""
    found: dict[str, list[str]] = {}
    for name, file in files().items():
        if not name.startswith(f"{group}/") or not isinstance(file.content, dict):
            continue
        content = file.content.get(group, {}) if "@package _global_" in file.text else file.content
        for key in keys_of(content) if isinstance(content, dict) else ():
            found.setdefault(key.lower(), []).append(
                f"{group}={name.removeprefix(f'{group}/').removesuffix('.yaml')}"
            )
    return found


def keys_of(config: Mapping[str, object], prefix: str = "") -> dict[str, bool]:
    """Every key of a config, dotted, and whether it holds a value rather than further keys."""
    found = {}
    for key, value in config.items():
        below = isinstance(value, Mapping) and bool(value)
        if key not in ("_target_", "_partial_"):
            found[f"{prefix}{key}"] = not below
        if isinstance(value, Mapping):
            found |= keys_of(value, f"{prefix}{key}.")
    return found
