"""Config to objects: the only place that instantiates."""

import inspect
import os
import pkgutil
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator, MPSAccelerator
from torch import nn

from experiments import checkpoints
from experiments.errors import UserError
from experiments.trust import check_config

Config = Mapping[str, Any]
REFUSALS = (
    InstantiationException,
    MisconfigurationException,
    TypeError,
    ValueError,
    ImportError,
    AttributeError,
)
ACCELERATORS = {"cpu": CPUAccelerator, "cuda": CUDAAccelerator, "mps": MPSAccelerator}


@dataclass
class Experiment:
    """What a config describes, ready for ``trainer.fit(classifier, data)``."""

    data: LightningDataModule
    classifier: LightningModule
    trainer: Trainer


@contextmanager
def constructing(target: str) -> Iterator[None]:
    """Turn a constructor's refusal of its arguments into a UserError that gives the reason alone."""
    try:
        yield
    except REFUSALS as error:
        cause = error.__cause__ or error if isinstance(error, InstantiationException) else error
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"{target} cannot be built: {str(cause).strip()}") from error


def make(config: Config, **objects: Any) -> Any:
    """Call a config's ``_target_`` with its other keys, and with ``objects`` that are built already.

    Raises:
        UserError: if the target cannot be found, or refuses its arguments.
    """
    with constructing(config["_target_"]):
        if objects:  # as partial arguments: passed through Hydra they would be copied and converted
            return instantiate({**config, "_partial_": True}, _convert_="all")(**objects)
        return instantiate(dict(config), _convert_="all")


def taken_by(target: str, offered: Config) -> dict[str, Any]:
    """Those of the ``offered`` arguments that the target's signature names."""
    with constructing(target):
        parameters = inspect.signature(pkgutil.resolve_name(target)).parameters
    return {name: value for name, value in offered.items() if name in parameters}


def facts(data: LightningDataModule) -> dict[str, Any]:
    """What a network may want to know of the data: its classes, channels, image size and number of features."""
    found = {}
    if (num_classes := getattr(data, "num_classes", None)) is not None:
        found["num_classes"] = num_classes
    if (shape := getattr(data, "image_shape", None)) is not None:
        channels, height, width = shape
        found |= {
            "in_channels": channels,
            "image_size": [height, width],
            "in_features": channels * height * width,
        }
    return found


def filled(config: Config, data: LightningDataModule) -> dict[str, Any]:
    """The network's config with what it leaves null filled in from the data."""
    known = taken_by(config["_target_"], facts(data))
    return {**config, **{name: value for name, value in known.items() if config.get(name) is None}}


def build_data(config: Config) -> LightningDataModule:
    """The data set, from all that stands in its group."""
    try:
        data: LightningDataModule = make(config["data"])
    except UserError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UserError(f"{error}; data=custom gives a data set of your own no key but those you add") from error
    return data


def build_classifier(config: Config, data: LightningDataModule) -> LightningModule:
    """The LightningModule around the network, with what it takes of loss, optimizer, scheduler, metrics and card."""
    net = filled(config["model"]["net"], data) if config["model"].get("net") else {}
    card = {
        "net": net,
        "image_shape": list(getattr(data, "image_shape", [])),
        "mean": list(getattr(data, "mean", [])),
        "std": list(getattr(data, "std", [])),
        "class_names": list(getattr(data, "class_names", [])),
    }
    offered = {
        "net": lambda: make(net),
        "loss": lambda: make(config["loss"]),
        "optimizer": lambda: make(config["optimizer"]),
        "scheduler": lambda: config["scheduler"] and make(config["scheduler"]),
        "metrics": lambda: {name: make(filled(one, data)) for name, one in config["metrics"].items() if one},
        "num_classes": lambda: facts(data).get("num_classes"),
        "card": lambda: card,
    }
    rest = {name: value for name, value in config["model"].items() if name != "net"}
    taken = {name: create() for name, create in taken_by(rest["_target_"], offered).items()}
    module: LightningModule = make(rest, **taken)
    return module


def compile_in_place(module: LightningModule) -> None:
    """Let torch.compile the network (all of a module without one) at its first batch; names of weights stay.

    Raises:
        UserError: if there is no C++ compiler, which torch would say in the middle of that batch.
    """
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = (shlex.split(os.environ.get("CXX", "")) or [default])[0]
    if shutil.which(compiler) is None:
        raise UserError(
            f"compile=true needs a C++ compiler, and there is no {compiler}: install one, name yours in the "
            "environment variable CXX, or set compile=false"
        )
    getattr(module, "net", module).compile()


def check_accelerator(name: str) -> None:
    """Raise UserError, naming the accelerators present, if ``name`` is an accelerator that is not."""
    present = [known for known, accelerator in ACCELERATORS.items() if accelerator.is_available()]
    usable = {"auto", *present, *(["gpu"] if len(present) > 1 else [])}
    if name in (*ACCELERATORS, "gpu") and name not in usable:
        raise UserError(
            f"trainer.accelerator={name} is not available on this machine; present: {', '.join(present)}. "
            "trainer.accelerator=auto takes the best of them."
        )


def build_trainer(config: Config) -> Trainer:
    """The Trainer with its callbacks and loggers; a callback or logger that is null is off."""
    check_accelerator(config["trainer"]["accelerator"])
    callbacks = [make(callback) for callback in config["callbacks"].values() if callback]
    loggers = [make(logger) for logger in (config["logger"] or {}).values() if logger]
    plugins = [checkpoints.AtomicCheckpointIO()]
    trainer: Trainer = make(config["trainer"], callbacks=callbacks, logger=loggers, plugins=plugins)
    return trainer


def build(config: Config) -> Experiment:
    """Build everything that a composed config describes.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns.

    Raises:
        UserError: if the config names what does not exist, or values that do not go together.
    """
    data = build_data(config)
    classifier = build_classifier(config, data)
    if config["compile"]:
        compile_in_place(classifier)
    return Experiment(data, classifier, build_trainer(config))


def load(path: str | Path, trust: Sequence[str] = ()) -> nn.Module:
    """Rebuild the network from a checkpoint alone: plain, on the CPU, in evaluation mode.

    It takes normalised float images (batch, C, H, W) and gives logits (batch, num_classes).

    Args:
        path: a ``.ckpt`` file of a run.
        trust: packages of your own whose networks the checkpoint may name.

    Raises:
        UserError: if the file is missing or damaged, or names anything but a network of a trusted package.
    """
    checkpoint = checkpoints.read(path)
    config = checkpoints.card(checkpoint, path)["net"]
    check_config(config, str(path), trust)
    net: nn.Module = make(config)
    try:
        net.load_state_dict(checkpoints.net_weights(checkpoint))
    except (KeyError, RuntimeError) as error:
        raise UserError(f"the weights in {path} do not fit the network that it names: {error}") from error
    return net.eval()
