"""Open the storage of a study, shared by processes that may die at any moment."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

JOURNAL = "study.journal"
BEAT, GRACE = 30, 120  # seconds


class SystemLock(JournalFileOpenLock):
    """The journal's lock by the system: optuna's own outlives a killed holder by 30 seconds."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Free it."""
        self._lock.release()


class Journal(JournalFileBackend):
    """A journal that goes on behind a line whose writer was killed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        super().__init__(str(path), SystemLock(beside(path, "lock")))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Cut off half a line, then append."""
        self._lock.acquire()
        try:
            with self._path.open("rb+") as file:
                content_ends = file.seek(0, os.SEEK_END)
                if content_ends:
                    file.seek(content_ends - 1)
                    if file.read(1) != b"\n":
                        file.seek(0)
                        file.truncate(file.read().rfind(b"\n") + 1)
            super().append_logs(logs)
        finally:
            self._lock.release()


def beside(path: Path, suffix: str) -> Path:
    """A hidden file that belongs to a storage's file."""
    return path.with_name(f".{path.name}.{suffix}")


def file_of(address: str) -> Path | None:
    """The file that a storage lies in; None for a database server."""
    if "://" not in address:
        return Path(address)
    if address.startswith("sqlite"):
        return Path(address.partition(":///")[2].partition("?")[0])
    return None


def shown(address: str) -> str:
    """A storage as it may be printed: without a password."""
    if "://" not in address:
        return os.path.relpath(address) if Path(address).is_relative_to(Path.cwd()) else address
    from sqlalchemy.engine import make_url

    return make_url(address).render_as_string(hide_password=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Without optuna's warnings that heartbeats are young, and meant for its own loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        yield


@lru_cache
def opened(address: str, process: int) -> BaseStorage:
    """A process's connection to a storage: the path of a journal, or the URL of a database."""
    file = file_of(address)
    if "://" not in address:
        assert file is not None
        return JournalStorage(Journal(file))
    if file is not None:
        return RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 60}})
    with quiet():
        return RDBStorage(address, heartbeat_interval=BEAT, grace_period=GRACE)
