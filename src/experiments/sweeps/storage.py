"""Open the journal of a study, shared by processes that may die at any moment."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

JOURNAL = "study.journal"


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
    """A journal file that stays usable after a writer was killed within a line."""

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
    """A hidden file that belongs to a journal."""
    return path.with_name(f".{path.name}.{suffix}")


@lru_cache
def journal_storage(journal: Path, process: int) -> JournalStorage:
    """Open a journal, once a process."""
    return JournalStorage(Journal(journal))
