"""What every launcher's jobs need, and the ends of a multirun that did not go well."""

from hydra.errors import CompactHydraException
from omegaconf import DictConfig, open_dict, read_write


class SomeFailed(CompactHydraException):
    """Not all jobs of a grid finished: exit code 1, after the table that says which."""


class NothingFinished(CompactHydraException):
    """A sweep is done, and not one trial has a value: exit code 1."""


def prepared(config: DictConfig) -> DictConfig:
    """The config for a launcher; Ray is not to start a crashed job again behind a sweep's back."""
    if "ray" in config.hydra.launcher:
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.launcher.ray.remote.setdefault("max_retries", 0)
    return config
