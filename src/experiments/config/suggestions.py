"""Say what may be meant by an override that cannot be applied: by its case, place, other tools' words, spelling."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import yaml

from experiments.config import conf_files
from experiments.config.checks.sections import LISTS
from experiments.config.checks.sources import read_conf_files

MAX_SUGGESTIONS = 8


def names_in_other_tools() -> dict[str, str]:
    """What other tools call a key or a choice, normalised, and what to type here."""
    return _table()["other_tools"]


def moved_keys() -> dict[str, str]:
    """Keys that are configured elsewhere than in Lightning or torch, and what to type."""
    return _table()["moved"]


@lru_cache
def _table() -> dict[str, dict[str, str]]:
    content = yaml.safe_load(Path(__file__).with_name("synonyms.yaml").read_text(encoding="utf-8"))
    return {
        part: {_normalised(str(name)): answer for name, answer in names.items()} for part, names in content.items()
    }


def _normalised(name: str) -> str:
    """A name without letter case and the marks that words are joined with; of a choice, both sides alike."""
    key, equals, choice = name.lower().replace("-", "_").partition("=")
    return key + equals + choice.replace("_", "")


def explain_unknown_choice(group: str, choice: str) -> str | None:
    """What to type instead of a choice that a group does not have."""
    choices = conf_files.choices(group)
    if not choices or choice in choices:
        return None
    plain = {_normalised(f"x={known}"): known for known in choices}
    last = choice.rpartition(".")[2]  # of torch.optim.SGD
    for name in (choice, last, *(last.lower().removesuffix(end) for end in (group, "datamodule", "dataset"))):
        if (same := plain.get(_normalised(f"x={name}"))) is not None:
            return f"there is no such choice. Type {group}={same}"
        if (answer := names_in_other_tools().get(_normalised(f"{group}={name}"))) is not None:
            return f"there is no such choice. Type {answer}" if "=" in answer.split()[0] else answer
    if group == "data" and choice.startswith((".", "/", "~")):
        return f"there is no such choice. Type data=image_folder data.root={choice}"
    near = get_close_matches(choice.lower(), choices, n=3)
    listed = ", ".join([*near, *(known for known in choices if known not in near)])
    own = f"; another class by {group}._target_=<import path>" if group in ("optimizer", "scheduler", "loss") else ""
    if group == "experiment" and conf_files.own_folder() is None:
        own = "; a folder of your own with others is named by --config-dir <folder>"
    return f"there is no such choice.{_did_you_mean(f'{group}={one}' for one in near)} There are {listed}{own}"


def explain_unknown_key(key: str, value: str | None, known: Mapping[str, bool]) -> str:
    """What to type instead of a key that does not exist; of the ``known`` ones, whether they hold a value."""
    return _UnknownKey(key, value, known).explain()


class _UnknownKey:
    """A key that does not exist, and the ways to find which one is meant; the surest come first."""

    def __init__(self, key: str, value: str | None, known: Mapping[str, bool]) -> None:
        self.known = known
        self.typed = "" if value is None else f"={value}"
        self.words = key.lower().replace("-", "_").split(".")
        self.group, self.last = self.words[0], self.words[-1]
        self.spelled: dict[str, list[str]] = {}  # known keys by their lower-case names
        for name in sorted(known, key=lambda name: not known[name]):
            self.spelled.setdefault(name.lower().replace("-", "_"), []).append(name)
        in_group = [names for low, names in self.spelled.items() if low.startswith(f"{self.group}.")]
        self.in_group = [name for names in in_group for name in names]
        self.of_choices = {} if self.group == "hydra" else choices_by_key(self.group)
        self.below_group = ".".join(self.words[1:])

    def explain(self) -> str:
        """The answer of the first way that finds one."""
        for find in (
            self._in_other_letter_case,
            self._group_by_its_name,
            self._moved,
            self._elsewhere_in_group,
            self._in_another_choice,
            self._with_same_last_words,
            self._by_other_tools_name,
            self._misspelled_in_group,
            self._misspelled_in_another_choice,
            self._misspelled,
        ):
            if answer := find():
                return answer
        if beside := [name for name in self.in_group if name.count(".") == max(1, len(self.words) - 1)]:
            return f"there is no such key. There are {', '.join(beside)}"
        return "there is no such key. --help lists the groups, --cfg job every key; +key=value adds one of your own"

    def _did_you_mean(self, names: Iterable[str]) -> str | None:
        names = list(dict.fromkeys(names))
        return f"there is no such key.{_did_you_mean(f'{name}{self.typed}' for name in names)}" if names else None

    def _in_other_letter_case(self) -> str | None:
        return self._did_you_mean(self.spelled.get(".".join(self.words), ()))

    def _group_by_its_name(self) -> str | None:
        """``optimizer.name=sgd``."""
        if len(self.words) == 2 and self.last in ("name", "type", "class_name") and conf_files.is_group(self.group):
            return _explain_replacement(self.group, self.typed, self.known)
        return None

    def _moved(self) -> str | None:
        key = ".".join(self.words)
        answer = moved_keys().get(key) or names_in_other_tools().get(key) if len(self.words) > 1 else None
        return _explain_replacement(answer, self.typed, self.known) if answer else None

    def _elsewhere_in_group(self) -> str | None:
        ends = [name for name in self.in_group if self.known[name] and _last_word(name) == self.last]
        return self._did_you_mean(ends)

    def _in_another_choice(self) -> str | None:
        choices = self.of_choices.get(self.below_group)
        if not choices:
            return None
        if self.group in LISTS:
            listed = ["default"] * (self.group == "callbacks") + [choices[0].partition("=")[2]]
            return f"the chosen {self.group} have no such key. Add {self.group}=[{','.join(listed)}] to have it"
        depth = len(self.words) - 1
        takes = [name.partition(".")[2] for name in self.in_group if name.count(".") == depth and self.known[name]]
        return (
            f"the chosen {self.group} has no such key, it takes {', '.join(takes)}. "
            f"Type {' or '.join(choices)} to have it"
        )

    def _with_same_last_words(self) -> str | None:
        for count in range(len(self.words), 0, -1):  # as many as some key has
            ending = "." + ".".join(self.words[-count:])
            found = [name for low, names in self.spelled.items() if f".{low}".endswith(ending) for name in names]
            if values := [name for name in found if self.known[name]]:
                return self._did_you_mean(values)
            if found and self.last not in names_in_other_tools():
                return self._did_you_mean(found)
        return None

    def _by_other_tools_name(self) -> str | None:
        answer = names_in_other_tools().get(self.last)
        return _explain_replacement(answer, self.typed, self.known) if answer else None

    def _misspelled_in_group(self) -> str | None:
        near = get_close_matches(self.last, [_last_word(name) for name in self.in_group], n=3, cutoff=0.75)
        return self._did_you_mean(name for word in near for name in self.in_group if _last_word(name) == word)

    def _misspelled_in_another_choice(self) -> str | None:
        for key in get_close_matches(self.below_group, list(self.of_choices), n=1, cutoff=0.8):
            choices = " or ".join(self.of_choices[key])
            return f"the chosen {self.group} has no such key. Type {self.group}.{key} with {choices}"
        return None

    def _misspelled(self) -> str | None:
        near = get_close_matches(".".join(self.words), list(self.spelled), n=3, cutoff=0.8)
        for word in get_close_matches(
            self.last, list({_last_word(low): None for low in self.spelled}), n=2, cutoff=0.8
        ):
            near += [low for low in self.spelled if _last_word(low) == word]
        return self._did_you_mean(name for low in near for name in self.spelled[low])


def _last_word(key: str) -> str:
    return key.lower().rpartition(".")[2]


def suggestion_suffix(key: str, value: object, known: Mapping[str, bool]) -> str:
    """The same as the end of another sentence; nothing where nothing is near."""
    others = {name: holds for name, holds in known.items() if name != key}
    typed = None if isinstance(value, Mapping) else str(value)
    said = explain_unknown_key(key, typed, others).removeprefix("there is no such key").lstrip(". ")
    return "" if said.startswith(("--help", "There are")) else f" {said[:1].upper()}{said[1:]}"


def _explain_replacement(answer: str, typed: str, known: Iterable[str]) -> str:
    if " " in answer or "=" in answer:
        return answer
    if conf_files.is_group(answer):
        wrong = explain_unknown_choice(answer, typed.removeprefix("="))
        return f"there is no such key. Type {answer}{typed}" if wrong is None else f"the key is {answer}, and {wrong}"
    available = answer in known or answer.startswith("hydra.") or "." not in answer
    condition = "" if available else ", with another choice of the group"
    return f"there is no such key. Type {answer}{typed}{condition}"


def _did_you_mean(names: Iterable[str]) -> str:
    listed = list(names)[:MAX_SUGGESTIONS]
    return f" Did you mean {' or '.join(listed)}?" if listed else ""


def choices_by_key(group: str) -> dict[str, list[str]]:
    """For every key in the files of a group, in lower case, the choices that have it, as one would type them."""
    found: dict[str, list[str]] = {}
    for name, file in read_conf_files().items():
        if not name.startswith(f"{group}/") or not isinstance(file.content, dict):
            continue
        content = file.content.get(group, {}) if "@package _global_" in file.text else file.content
        for key in leaf_by_key(content) if isinstance(content, dict) else ():
            found.setdefault(key.lower(), []).append(
                f"{group}={name.removeprefix(f'{group}/').removesuffix('.yaml')}"
            )
    return found


def leaf_by_key(config: Mapping[str, object], prefix: str = "") -> dict[str, bool]:
    """Every key of a config, dotted, and whether it holds a value rather than further keys."""
    found = {}
    for key, value in config.items():
        below = isinstance(value, Mapping) and bool(value)
        if key not in ("_target_", "_partial_"):
            found[f"{prefix}{key}"] = not below
        if isinstance(value, Mapping):
            found |= leaf_by_key(value, f"{prefix}{key}.")
    return found
