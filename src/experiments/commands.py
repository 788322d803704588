"""What stands around Hydra's command line: what it must not be given, and how a multirun's failures are told."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from hydra.errors import CompactHydraException

from experiments.composition import CONF, missing_run, wrong_choice

_REMARKS = ("Error executing job with overrides:", "Set the environment variable HYDRA_FULL_ERROR=1")
MULTIRUN = {"-m", "--multirun"}


class Failed(CompactHydraException):
    """A job of a multirun that failed and has said why; its text, which Hydra prints last, names all of them."""

    jobs: list["Failed"] = []  # noqa: RUF012  # of this process, in their order

    def __init__(self, job: int, code: int) -> None:
        super().__init__(job, code)  # what another process is sent
        self.job, self.code = job, code
        self.jobs.append(self)

    @property
    def exit_code(self) -> int:
        """2 where all that failed were mistakes of the user's, 1 otherwise."""
        return min([self.code, *(failed.code for failed in self.jobs)])

    def __str__(self) -> str:
        jobs = sorted({self.job, *(failed.job for failed in self.jobs)})
        return f"error: {len(jobs)} of the jobs failed, and said why above: {', '.join(map(str, jobs))}"


def refused(arguments: Sequence[str]) -> str | None:
    """What is wrong with a command line that Hydra would take, or would take for something else."""
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if name == "experimental-rerun":
            return "--experimental-rerun loads a pickle, and a pickle is code: use resume=<run directory>"
        if argument.startswith("--") and (
            (CONF / name.partition(".")[0]).is_dir() or name.partition(".")[0] in _KEYS
        ):
            return f"{argument}: options take no dashes here: {argument.lstrip('-')}" + (
                "" if "=" in argument else "=..."
            )
    return wrong_choice(arguments) or missing_run(arguments)


_KEYS = ("seed", "name", "resume", "init_from", "check", "test", "trust", "compile", "deterministic", "data_root")


@contextmanager
def rehearsed(arguments: list[str]) -> Iterator[None]:
    """Where ``check=true`` was typed, let Hydra's own files fall into a folder that is gone afterwards."""
    if not any(argument.replace(" ", "").lower() == "check=true" for argument in arguments):
        yield
        return
    with TemporaryDirectory() as folder:
        arguments += [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", "hydra.output_subdir=null"]
        arguments += ["hydra.job_logging.root.handlers=[console]", "~hydra.job_logging.handlers.file"]
        yield


class _Stream:
    """A text stream without the lines that Hydra adds to what was said already."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if text.strip().startswith(_REMARKS) else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def without_remarks(arguments: Sequence[str]) -> Iterator[None]:
    """In a multirun, whose jobs say by themselves what is wrong, leave out Hydra's remarks on the first of them."""
    Failed.jobs.clear()
    with ExitStack() as stack:
        if MULTIRUN & set(arguments):
            stack.enter_context(redirect_stderr(_Stream(sys.stderr)))
        yield
