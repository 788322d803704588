"""Start a project of one's own from this one."""

import ast
import builtins
import importlib.util
import keyword
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from experiments.config.command_line import run_script
from experiments.config.installation import CHECKOUT, DISTRIBUTION, SCRIPTS, install_command, typed_path
from experiments.config.options import option, read
from experiments.errors import UserError

FOLDERS = ("build", "conf", "data", "dist", "docs", "hydra_plugins", "project", "runs", "scripts", "src", "tests")


@dataclass
class NewProject:
    """Start a project: python scripts/new_project.py name=leaf_diseases path=../leaf_diseases nets=[cnn,resnet].

    It gets all of this project under its own name, cut to the networks and data sets that are chosen, with its own
    README, tests, checks and first commit. model=mlp and data=digits stay in every project, since its tests run on
    them, and so does what brings networks and data from elsewhere: model=custom, model=pretrained, data=custom,
    data=image_folder and data=image_table.
    """

    name: str = option("the package, a Python name in lower case, such as leaf_diseases")
    path: str = option("the folder to write, which must not be there")
    nets: list[str] = option("the networks to keep, such as [cnn,resnet]; none named: all", [])
    data: list[str] = option("the data sets to keep, such as [image_folder]; none named: all", [])
    author: str | None = option("whom the licence names, if not git's user.name", None)


def main() -> None:
    options = read(NewProject)
    if CHECKOUT is None:
        raise UserError("a project is started from a checkout of this one, not from an installed wheel")
    check_name(options.name)
    path = Path(os.path.abspath(options.path))
    if os.path.lexists(path):
        raise UserError(f"path={options.path} is there already: name a folder that is not")
    if CHECKOUT in (path.resolve(), *path.resolve().parents):
        raise UserError(
            f"path={options.path} lies in this project: name a folder beside it, such as ../{options.name}"
        )
    if importlib.util.find_spec("ruff") is None:
        raise UserError(f"starting a project needs ruff, which lays out its code: {install_command('dev')}")
    author = options.author or git_user()
    if not author:
        raise UserError('the licence names you: type author="<your name>", or git config --global user.name "..."')
    sys.path.insert(0, str(SCRIPTS))
    from project.choices import choices
    from project.write import commit, write_project

    nets = options.nets or ["mlp", *(one.name for one in choices("model"))]
    data = options.data or ["digits", *(one.name for one in choices("data"))]
    print(f"writing {options.name} ...", flush=True)
    removed_tests = write_project(options.name, path, nets, data, author)
    refused = commit(path, options.name)
    for test in removed_tests:
        print(f"removed, since its network or data set was left out: {test}")
    if refused:
        print(f"there is no first commit ({refused}): git init; git add --all; git commit")
    print(f"written: {path}\nIts README.md says what to type; first:\n  cd {typed_path(path)}")
    print('  python -m venv .venv && . .venv/bin/activate && pip install -e ".[dev]" && python scripts/train.py')


def check_name(name: str) -> None:
    """Check that a package of this name hides no other.

    Raises:
        UserError: if it is no Python name in lower case, or another package's.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name.endswith("_"):
        suggestion = re.sub(r"\W+|_+$", "_", name.lower()).strip("_")
        hint = f": try name={suggestion}" if suggestion.isidentifier() and suggestion != name else ""
        raise UserError(f"name={name} is no name for a package, which has small letters, digits and _{hint}")
    assert CHECKOUT
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [
        *declared["dependencies"],
        *(one for extra in declared["optional-dependencies"].values() for one in extra),
    ]
    libraries = {re.split(r"[^\w-]", one)[0].replace("-", "_").lower() for one in required}
    if name in {*sys.stdlib_module_names, *dir(builtins), *libraries} or _is_installed(name):
        raise UserError(
            f"name={name} is a package that Python or this project needs: it would be hidden. Choose another"
        )
    files = [path.stem for folder in ("scripts", "docs", "conf/experiment") for path in (CHECKOUT / folder).iterdir()]
    if name in (DISTRIBUTION, *FOLDERS, *files) or name in names_in(CHECKOUT):
        raise UserError(
            f"name={name} is taken: the project has a folder, a file or something in its code of that name"
        )


def names_in(checkout: Path) -> set[str]:
    """The names that modules use which import the package by its name, so that they would mean two things."""
    found: set[str] = set()
    sources = (
        path.read_text(encoding="utf-8") for folder in ("src", "tests") for path in (checkout / folder).rglob("*.py")
    )
    for source in (each for each in sources if f"import {DISTRIBUTION}\n" in each):
        for node in ast.walk(ast.parse(source)):
            found |= {str(getattr(node, key, "")) for key in ("id", "arg", "name", "asname")}
    return found


def _is_installed(name: str) -> bool:
    """Whether a package of this name lies where pip installs; a project's own checkout lies elsewhere."""
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    places = [found.origin or "", *(found.submodule_search_locations or [])] if found else []
    return any({"site-packages", "dist-packages"} & {*Path(place).parts} for place in places)


def git_user() -> str:
    """The name that git signs commits with, if it is there."""
    try:
        return subprocess.run(["git", "config", "user.name"], capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    run_script(main)
