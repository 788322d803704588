"""The YAML files there are to choose from: the package's, and a user's own that add to them or replace them."""

import os
import shutil
import sys
from collections.abc import MutableSequence
from functools import lru_cache
from pathlib import Path

import hydra

from experiments.config.installation import CONF, OWN_CONF
from experiments.errors import UserError

FROZEN = ".frozen"  # an empty file beside those that a multirun began with
NO_DEFAULTS = b"# @package _global_\n{}\n"


def own_folder() -> Path | None:
    """Return the user's own conf folder: ``EXPERIMENTS_CONF``, or ``conf`` beside the program that was started.

    Raises:
        UserError: if ``EXPERIMENTS_CONF`` names no folder.
    """
    if named := os.environ.get(OWN_CONF):
        folder = Path(named).expanduser().absolute()
        if not folder.is_dir():
            raise UserError(
                f"--config-dir (or {OWN_CONF}): there is no folder {named}. Name one with files like conf's"
            )
        return folder
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    if program is None:  # a notebook
        return None
    folder = Path(program).resolve().parent / "conf"
    return folder if folder.is_dir() and folder != CONF else None


def take_config_dir(arguments: MutableSequence[str]) -> None:
    """Take ``--config-dir`` out of a command line and into the environment, where child processes find it too."""
    options = [one.partition("=")[0] for one in arguments]
    if sum(options.count(name) for name in ("--config-dir", "-cd")) > 1:
        raise UserError("--config-dir is there twice: it names one folder, which may hold files of all groups")
    for position, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in ("--config-dir", "-cd"):
            if not equals and position + 1 == len(arguments):
                raise UserError(f"{option} must name a folder: {option} my_conf")
            os.environ[OWN_CONF] = str(Path(value if equals else arguments[position + 1]).expanduser().absolute())
            del arguments[position : position + (1 if equals else 2)]
            own_folder()
            return


def folders() -> list[Path]:
    """Return the folders with YAML files, those that rule first."""
    own = own_folder()
    return [CONF] if own is None else [own, CONF]


def find(name: str) -> Path | None:
    """Return the file that a name such as ``model/mlp`` stands for."""
    for folder in folders():
        path = folder / f"{name}.yaml"
        if ".." not in path.parts and path.is_relative_to(folder) and path.is_file():
            return path
    return None


def every_file() -> dict[str, Path]:
    """Return all files, by their names such as ``model/mlp.yaml``."""
    return {
        path.relative_to(folder).as_posix(): path
        for folder in reversed(folders())
        for path in sorted(folder.rglob("*.yaml"))
    }


def is_group(name: str) -> bool:
    """Whether there is a folder of this name to choose from."""
    return any((folder / name).is_dir() for folder in folders())


def groups() -> list[str]:
    """Return the names of the folders to choose from."""
    return sorted({path.name for folder in folders() for path in folder.iterdir() if path.is_dir()})


def choices(group: str) -> list[str]:
    """Return the choices of a group; of Hydra's own groups, those that it brings too."""
    places = [*folders(), *([Path(hydra.__file__).parent / "conf"] if group.startswith("hydra/") else [])]
    return sorted({path.stem for folder in places for path in (folder / group).glob("*.yaml")})


def is_frozen(folder: Path) -> bool:
    """Whether a folder holds the conf files that a multirun began with."""
    return (folder / FROZEN).is_file()


def copy_to(folder: Path) -> None:
    """Copy all files into a folder, whole or not at all; as it is, it composes the same whatever becomes of them."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    for name, path in every_file().items():
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, beside / name)
    local = beside / "local" / "default.yaml"
    if not local.exists():  # one that is written later is not to count
        local.parent.mkdir(exist_ok=True)
        local.write_bytes(NO_DEFAULTS)
    (beside / FROZEN).touch()
    try:
        beside.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(beside)


def use_frozen(folder: Path) -> None:
    """Compose from the files in a folder from here on, and say which of today's differ."""
    today = {name: path.read_bytes() for name, path in every_file().items()}
    kept = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.yaml"))}
    kept = {name: content for name, content in kept.items() if name in today or content != NO_DEFAULTS}
    if changed := [name for name in {**kept, **today} if kept.get(name) != today.get(name)]:
        print(
            f"this multirun uses the conf files that it began with, in {folder}; what has changed since is "
            f"ignored: "
            f"{', '.join(changed)}. To take today's files, remove that folder",
            file=sys.stderr,
        )
    os.environ[OWN_CONF] = str(folder.absolute())


def report_replaced() -> None:
    """Name, once a process and on standard error, every file of the package's that a user's own one replaces."""
    _report_replaced(own_folder())


@lru_cache
def _report_replaced(own: Path | None) -> None:
    if own is not None and is_frozen(own):
        return
    names = [path.relative_to(own).as_posix() for path in sorted(own.rglob("*.yaml"))] if own else []
    if replaced := [name for name in names if (CONF / name).is_file()]:
        print(f"{own} replaces files of conf: {', '.join(replaced)}", file=sys.stderr)
