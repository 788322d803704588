"""Files that are whole or not there, the lock of a run directory, and paths that have moved."""

import csv
import io
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.errors import UserError

MAX_BYTES = 4 * 2**20


def relocate_paths(value: Any, old: str, new: str) -> Any:
    """The same values, with every path below the folder ``old`` now below ``new``, keys included."""
    if isinstance(value, dict):
        return {relocate_paths(key, old, new): relocate_paths(part, old, new) for key, part in value.items()}
    if isinstance(value, list):
        return [relocate_paths(part, old, new) for part in value]
    if isinstance(value, str) and (value == old or old + os.sep in value):
        return value.replace(old, new)
    return value


def name_from(folder: Path, path: Path) -> str:
    """A file's name as seen from a folder, the same on every system; of another drive's, its whole path."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.as_posix()


def lock(folder: Path) -> FileLock:
    """The lock that a process holds while it works in a run directory; the system frees it when the process ends."""
    return FileLock(folder / ".lock")


def is_locked(folder: Path) -> bool:
    """Whether a living process works in a run directory."""
    try:
        with lock(folder).acquire(timeout=0):
            return False
    except (Timeout, OSError):
        return True


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is whole or is not there, even if the process or the machine dies meanwhile.

    Raises:
        UserError: if the folder cannot be written or the disk is full; what stood at ``path`` before stays.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        if os.name == "posix":  # the new name must survive a power cut too
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        with suppress(OSError):  # where the folder itself is the trouble, there is nothing to remove
            beside.unlink()
        raise UserError(f"{path} cannot be written: {error.strerror}. Earlier files are untouched.") from error


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file that is whole or is not there; names of files in it need not be text.

    Raises:
        UserError: if it cannot be written.
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


def remove_temporaries(folder: Path) -> None:
    """Remove the unfinished files of writes that were killed."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
