"""Why a run may end early: a mistake that the user can mend, or a signal."""

import signal
import sys
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
    """End a script over a mistake of the user's: the message alone, exit code 2."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)
