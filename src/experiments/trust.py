"""What a stored config may build. A config in a file is code: Hydra calls whatever ``_target_`` names.

The command line's own config is the user's and may name anything. One that comes out of a checkpoint or a run
directory may not: only classes of the kinds below, from the packages below and from those the user trusts by name.
"""

from collections.abc import Sequence
from typing import Any

from hydra.utils import get_class
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from experiments.errors import UserError

PACKAGES = ("experiments", "torch.nn", "torch.optim", "torchmetrics", "lightning")
KINDS = (nn.Module, Optimizer, LRScheduler, Metric, LightningModule, LightningDataModule, Trainer, Callback, Logger)
_HYDRA_KEYS = {"_target_", "_partial_"}


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def check_config(config: Any, source: str, trust: Sequence[str] = ()) -> None:
    """Accept a stored config, or raise.

    Args:
        config: plain values, as read from ``source``.
        source: the file, for the message.
        trust: further packages whose classes may be built, such as the user's own.

    Raises:
        UserError: if the config could run anything but the constructor of an allowed class.
    """
    if isinstance(config, dict):
        for key, value in config.items():
            if isinstance(key, str) and key.startswith("_") and key.endswith("_") and key not in _HYDRA_KEYS:
                raise UserError(f"{source}: the key {key!r} is not allowed in a stored config")
            check_config(value, source, trust)
        if "_target_" in config:
            _check_target(config["_target_"], source, trust)
    elif isinstance(config, (list, tuple)):
        for value in config:
            check_config(value, source, trust)
    elif isinstance(config, str):
        if "${" in config:
            raise UserError(f"{source}: {config!r} is an interpolation, which a stored config may not hold")
    elif not isinstance(config, (bool, int, float, type(None))):
        raise UserError(f"{source}: a stored config holds plain values only, not {type(config).__name__}")


def _check_target(target: object, source: str, trust: Sequence[str]) -> None:
    allowed = (*PACKAGES, *trust)
    how = f"allowed are classes from {', '.join(allowed)}; if you trust another package, name it: trust=[package]"
    if not isinstance(target, str) or not _within(target, allowed):
        raise UserError(f"{source}: _target_={target!r} is not allowed: {how}")
    try:
        cls = get_class(target)
    except Exception as error:
        raise UserError(f"{source}: _target_={target!r} cannot be found: {error}") from error
    # The name alone proves nothing: modules hold what they import, such as torch.nn.functional.warnings.sys.exit.
    if not (issubclass(cls, KINDS) and _within(cls.__module__, allowed)):
        raise UserError(
            f"{source}: _target_={target!r} is no network, loss, optimizer, schedule, metric, "
            "data set, trainer, callback or logger"
        )
