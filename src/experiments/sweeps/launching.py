"""What every launcher's jobs need, and the ends of a multirun that did not go well."""

import sys

from omegaconf import DictConfig, open_dict, read_write


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
