"""The networks and data sets that a project can do without."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.config.installation import CHECKOUT, DISTRIBUTION
from experiments.errors import UserError, did_you_mean

#: A project's tests run on these two; the others bring networks and data from elsewhere.
ALWAYS = {"model": ("mlp", "custom", "pretrained"), "data": ("digits", "custom", "image_folder", "image_table")}


@dataclass(frozen=True)
class Choice:
    """A network or data set of ``conf``: the name to choose it by, and its class."""

    name: str
    class_name: str


def choices(group: str) -> list[Choice]:
    """The networks (``model``) or data sets (``data``) that can be left out or chosen."""
    assert CHECKOUT
    package = {"model": "nets", "data": "data"}[group]
    files = {
        path.stem: path.read_text(encoding="utf-8") for path in sorted((CHECKOUT / "conf" / group).glob("*.yaml"))
    }
    targets = {name: re.search(rf"_target_: {DISTRIBUTION}\.{package}\.(\w+)", text) for name, text in files.items()}
    return [Choice(name, found[1]) for name, found in targets.items() if found and name not in ALWAYS[group]]


def left_out(group: str, chosen: Sequence[str], key: str) -> list[Choice]:
    """The choices of a group that were not chosen.

    Raises:
        UserError: if something was chosen that is not there.
    """
    known = choices(group)
    names = [*(one.name for one in known), *ALWAYS[group]]
    for name in chosen:
        if name not in names:
            raise UserError(f"{key}: there is no {name}.{did_you_mean(name, names)} There are {', '.join(names)}")
    return [one for one in known if one.name not in chosen]


def words_for(some: Sequence[Choice], package: Path) -> set[str]:
    """What leads to some choices: names, classes, and what else stands in modules of nothing but them."""
    classes = {one.class_name for one in [*choices("model"), *choices("data")]}
    ours = {one.class_name for one in some}
    words = {one.name for one in some} | ours
    for path in [*package.glob("nets/*.py"), *package.glob("data/*.py")]:
        found = {
            node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
        }
        if found & ours and not found & (classes - ours):
            words |= {name for name in found if not name.startswith("_")}
    return words
