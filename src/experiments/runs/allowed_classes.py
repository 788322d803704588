"""What a stored config may build. A config in a file is code: Hydra calls whatever ``_target_`` names.

The command line's own config is the user's and may name anything. One that comes out of a checkpoint or a run
directory may not: only classes of the kinds below, from the packages below, functions by their full names, and what
lies in packages that the user trusts by name.
"""

import inspect
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from reprlib import repr as shorten
from typing import Any

from hydra.utils import get_object
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from experiments.errors import UserError

#: Where a name may begin, and where its class must have been written. Not all that these packages hold is harmless:
#: text and image metrics of torchmetrics load models by name, Lightning's demos download.
PACKAGES = ("experiments", "torch.nn", "torch.optim", "torchmetrics", "lightning")
PRETRAINED = "experiments.nets.pretrained"
#: Not a module's prefix: torch.hub.load is a function too. Beside them, the networks that torchvision registers.
FUNCTIONS = (
    "torch.tensor",
    "torch.ones",
    "torch.zeros",
    "datetime.timedelta",
    "experiments.learning.ParamGroup",
    PRETRAINED,
)
HOMES = (
    "experiments",
    "torch.nn",
    "torch.optim",
    "torchmetrics.aggregation",
    "torchmetrics.classification",
    "torchmetrics.regression",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.trainer",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies.ddp",
    "lightning.pytorch.strategies.single_device",
    "lightning.pytorch.plugins.precision",
    "lightning.pytorch.plugins.layer_sync",
    "lightning.fabric.plugins.environments",
)
FOLDERS = (
    "dirpath",
    "save_dir",
    "default_root_dir",
    "run_dir",
    "cache",
    "dir",
    "log_dir",
    "root_dir",
    "weights_save_path",
)
MLFLOW_STORE = "sqlite:///runs/mlflow.db"  # where conf/logger/mlflow.yaml has it
MAX_VALUES = 10_000
MAX_DEPTH = 50
KINDS = (
    nn.Module,
    Optimizer,
    LRScheduler,
    Metric,
    LightningModule,
    LightningDataModule,
    Trainer,
    Callback,
    Logger,
    Profiler,
    Strategy,
    Precision,
    ClusterEnvironment,
    LayerSync,
)
_HYDRA_KEYS = {"_target_", "_partial_"}


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def check_allowed(config: Any, source: str, trust: Sequence[str] = ()) -> None:
    """Accept a stored config, or raise.

    Args:
        config: plain values, as read from ``source``.
        source: the file, for the message.
        trust: further packages whose classes may be built, such as the user's own.

    Raises:
        UserError: if the config could run anything but the constructor of an allowed class.
    """
    remaining, looked_at = [(config, 0)], 0
    while remaining:
        value, depth = remaining.pop()
        looked_at += 1
        if looked_at > MAX_VALUES or depth > MAX_DEPTH:  # a list that holds itself has no end
            raise UserError(f"{source}: no config has more than {MAX_VALUES:,} values, {MAX_DEPTH} deep")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, (str, int)):
                    raise UserError(f"{source}: a stored config's keys are text, not {type(key).__name__}")
                known = _HYDRA_KEYS | ({"_args_"} if value.get("_target_") == "torch.nn.Sequential" else set())
                if isinstance(key, str) and key.startswith("_") and key.endswith("_") and key not in known:
                    raise UserError(f"{source}: the key {shorten(key)} is not allowed in a stored config")
                if isinstance(key, str) and "${" in key:
                    raise UserError(
                        f"{source}: {shorten(key)} is an interpolation, which a stored config may not hold"
                    )
            if not isinstance(value.get("_partial_", False), bool):
                raise UserError(f"{source}: _partial_ is true or false")
            if "_target_" in value:
                _check_target(value["_target_"], source, trust)
            remaining += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, (list, tuple)):
            remaining += [(part, depth + 1) for part in value]
        elif isinstance(value, str):
            if "${" in value or value == "???":
                raise UserError(f"{source}: {shorten(value)} is an interpolation, which a stored config may not hold")
        elif not isinstance(value, (bool, int, float, type(None))):
            raise UserError(f"{source}: a stored config holds plain values only, not {type(value).__name__}")


def _check_target(target: object, source: str, trust: Sequence[str]) -> None:
    allowed = (*PACKAGES, *trust)
    package = target.partition(".")[0] if isinstance(target, str) else ""
    its_name = package if package.isidentifier() and package not in sys.stdlib_module_names else "package"
    how = f"allowed are classes from {', '.join(allowed)}; if you trust another package, name it: trust=[{its_name}]"
    if not isinstance(target, str):
        raise UserError(f"{source}: _target_ is a {type(target).__name__}, which is not allowed: {how}")
    if target in FUNCTIONS or _is_torchvision_network(target):
        return
    if not _within(target, allowed):
        raise UserError(f"{source}: _target_={shorten(target)} is not allowed: {how}")
    try:
        found = get_object(target)
    except Exception as error:
        raise UserError(f"{source}: _target_={shorten(target)} cannot be found: {error}") from error
    # The name alone proves nothing: modules hold what they import, such as torch.nn.functional.warnings.sys.exit.
    home = str(getattr(found, "__module__", ""))
    if inspect.isclass(found):
        fine = issubclass(found, KINDS) and _within(home, (*HOMES, *trust))
    else:  # a function of one's own
        fine = inspect.isfunction(found) and _within(home, trust) and _within(target, trust)
    if not fine:
        raise UserError(
            f"{source}: _target_={shorten(target)} is no network, loss, optimizer, schedule, metric, "
            f"data set, trainer, callback or logger that may be built from a file; {how}"
        )


def trust_needed(config: Any) -> list[str]:
    """The packages in a config that must be trusted for it to be built when it is stored."""
    if isinstance(config, (list, tuple)):
        return sorted({package for part in config for package in trust_needed(part)})
    if not isinstance(config, Mapping):
        return []
    found = {package for part in config.values() for package in trust_needed(part)}
    if isinstance(target := config.get("_target_"), str):
        try:
            _check_target(target, "", ())
        except UserError:
            found.add(target.partition(".")[0])
    return sorted(found)


def _is_torchvision_network(target: str) -> bool:
    from torchvision import models

    name = target.rpartition(".")[2]
    return target == f"torchvision.models.{name}" and name in models.list_models(models)


def without_pretrained_weights(config: Any) -> Any:
    """A stored config whose networks of timm and torchvision fetch no weights: checkpoints have them."""
    if isinstance(config, list):
        return [without_pretrained_weights(part) for part in config]
    if not isinstance(config, dict):
        return config
    target = str(config.get("_target_"))
    fetching = ("weights", "weights_backbone") if target == PRETRAINED or _is_torchvision_network(target) else ()
    if target == PRETRAINED:
        config = {**config, "weights": None}  # which are fetched where nothing is said
    return {key: None if key in fetching else without_pretrained_weights(part) for key, part in config.items()}


def check_paths(config: Any, folder: Path, typed: Sequence[str] = ()) -> None:
    """Accept the files and folders that a stored config names, or raise.

    Folders that are written to must lie in ``folder``; no other value may lead out of it, by an absolute path, a
    home, ``..`` or a file's address. Exempt are what was typed again, the store that MLflow has by default, and
    ``data.root``, which is read and where data sets of known checksums are put.

    Raises:
        UserError: for a path that leads elsewhere; the message says how to allow it.
    """
    for name, value in _texts(config, ""):
        if name.endswith(".tracking_uri") and value == MLFLOW_STORE:
            continue
        if name in ("data.root", "data_root") or any(f"{name}.".startswith(f"{key}.") for key in typed):
            continue
        path = re.sub(r"^(sqlite|file):/*(?=/)", "", value)
        leads_out = (
            Path(path).is_absolute()
            or PureWindowsPath(path).is_absolute()
            or path.startswith("~")
            or ".." in PureWindowsPath(path).parts
            or "\0" in path
        )
        if "://" in path:
            raise UserError(
                f"{folder}: {name} sends a run's data elsewhere: add {shlex.quote(f'{name}={value}')} if it may"
            )
        if not leads_out and name.rpartition(".")[2] not in FOLDERS:
            continue
        if "\0" in path or not Path(path).expanduser().resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{folder}: {name}={shorten(value)} lies outside the run directory, which a stored config must not "
                f"leave: add {shlex.quote(f'{name}={value}')} if it may"
            )


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part, name)
    elif isinstance(value, str) and name.rpartition(".")[2] != "_target_":
        yield name, value
