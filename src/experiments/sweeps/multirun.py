"""What every multirun needs: its launcher's config, the end of a grid, and how it ends if it does not go well."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from experiments.config import conf_files
from experiments.config.hydra_internals import compose_from
from experiments.config.installation import command, typed_override, typed_path
from experiments.sweeps.job import Outcome


def freeze_conf(config: DictConfig, context: HydraContext) -> None:
    """Keep the conf files that a multirun begins with in its directory, and compose all its jobs from them."""
    folder = Path(config.hydra.sweep.dir).absolute() / "conf"
    if not config.check and not conf_files.is_frozen(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        conf_files.copy_to(folder)
        compose_from(context.config_loader, folder)


def conclude(batches: Sequence[Sequence[JobReturn]], config: DictConfig) -> list[Any]:
    """Show what came of a grid.

    Raises:
        SomeFailed: if a job failed; with exit code 2 where all that failed were mistakes of the user's, else 1.
    """
    from experiments.sweeps.summary.tables import table_of

    folder = str(config.hydra.sweep.dir)
    outcomes = [job.return_value for batch in batches for job in batch]
    failed = [outcome for outcome in outcomes if isinstance(outcome, Outcome) and outcome.error]
    if not config.check:  # which leaves no runs
        print(table_of(folder), flush=True)
        print(f"look at it again: {command('summarize')} runs={typed_path(Path(folder).absolute())}", flush=True)
        if failed:
            print(f"to run them again: {command_again(Path(config.hydra.sweep.dir).absolute())}", flush=True)
    if failed:
        listed = "\n".join(
            f"  {typed_path(Path(outcome.directory))}: {str(outcome.error).splitlines()[0]}" for outcome in failed
        )
        where = "" if config.check else "; error.txt in each has the traceback"
        raise SomeFailed(
            f"{len(failed)} of {len(outcomes)} runs failed{where}:\n{listed}",
            2 if all(outcome.mistake for outcome in failed) else 1,
        )
    return outcomes


def command_again(folder: Path) -> str:
    """What was typed, with the sweep's directory, where the study is found."""
    typed = [argument for argument in sys.argv[1:] if not argument.startswith("hydra.sweep.dir=")]
    return " ".join([command("train"), *map(shlex.quote, typed), typed_override("hydra.sweep.dir", folder)])


class Ended(SystemExit):
    """Ends a multirun that did not go well, and says why; Hydra would add lines of its own to an exception."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(code)
        self.message = message
        print(message, file=sys.stderr, flush=True)

    def __str__(self) -> str:
        return self.message


class Mistake(Ended):
    """What was asked for cannot be done, and the user can mend it."""

    def __init__(self, message: str) -> None:
        super().__init__(f"error: {message}", 2)


class SomeFailed(Ended):
    """Not all jobs of a grid finished, as the table has said."""


class NothingFinished(Ended):
    """A sweep is done, and not one trial has a value."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 1)


def prepared(config: DictConfig) -> DictConfig:
    """The config for a launcher; Ray is not to start a crashed job again behind a sweep's back."""
    if "ray" in config.hydra.launcher:
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.launcher.ray.remote.setdefault("max_retries", 0)
    return config
