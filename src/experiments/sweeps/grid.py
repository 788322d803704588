"""The end of a grid: a table of its runs, and whether all of them finished."""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from experiments.config.installation import command
from experiments.sweeps.job import Outcome
from experiments.sweeps.launching import SomeFailed


def conclude(batches: Sequence[Sequence[JobReturn]], config: DictConfig) -> list[Any]:
    """Show what came of a grid.

    Raises:
        SomeFailed: if a job failed; with exit code 2 where all that failed were mistakes of the user's, else 1.
    """
    from experiments.summarize import table_of

    folder = os.path.relpath(config.hydra.sweep.dir)
    outcomes = [job.return_value for batch in batches for job in batch]
    failed = [outcome for outcome in outcomes if isinstance(outcome, Outcome) and outcome.error]
    if not config.check:  # which leaves no runs
        print(table_of(folder), flush=True)
        print(f"look at it again: {command('summarize')} runs={shlex.quote(folder)}", flush=True)
        if failed:
            print(f"the same command with hydra.sweep.dir={shlex.quote(folder)} leaves out what is done", flush=True)
    if failed:
        listed = "\n".join(
            f"  {os.path.relpath(outcome.directory)}: {str(outcome.error).splitlines()[0]}" for outcome in failed
        )
        raise SomeFailed(
            f"{len(failed)} of {len(outcomes)} runs failed; error.txt in each has the traceback:\n{listed}",
            2 if all(outcome.mistake for outcome in failed) else 1,
        )
    return outcomes
