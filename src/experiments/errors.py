"""Why a run may end early: a mistake that the user can mend, or a signal."""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn


class UserError(Exception):
    """A mistake of the user's: the message names the offending value, the rule and the next move.

    Scripts print the message alone and exit with code 2; a traceback would only hide it.
    """


class Stopped(Exception):
    """A signal asked the run to stop, and it did, leaving a checkpoint to go on from."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}")

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1."""
        return 128 + self.number


def stop(error: UserError) -> NoReturn:
    """End a script over a mistake of the user's: the message alone (HYDRA_FULL_ERROR=1 adds where), exit code 2."""
    tell(error)
    raise SystemExit(2)


def tell(error: UserError, where: str = "") -> None:
    """Say what the mistake is, ``where`` it happened, and with HYDRA_FULL_ERROR=1 the way there."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    print(f"error{where}: {error}", file=sys.stderr)


def together(faults: Sequence[str]) -> str:
    """Several mistakes as one message."""
    return "".join(faults) if len(faults) < 2 else f"{len(faults)} mistakes:\n  " + "\n  ".join(faults)


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """``wrong``'s nearest neighbours as a question, or nothing."""
    from difflib import get_close_matches

    same = [name for name in known if name.lower() == wrong.lower()]
    near = same or get_close_matches(wrong, known, n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""
