"""Build objects from a config: the only module that instantiates."""

import inspect
import math
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hydra.errors import InstantiationException
from lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.plugins import CheckpointIO
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from experiments.callbacks import Freeze, Progress
from experiments.callbacks.averaging import kept_average
from experiments.config.checks.check import validated
from experiments.config.hydra_internals import instantiate
from experiments.data import ImageDataModule
from experiments.errors import UserError
from experiments.monitoring.loggers.record import MetricsRecord
from experiments.runs.allowed_classes import PRETRAINED, without_pretrained_weights
from experiments.runs.checkpoint_files import AtomicCheckpointIO
from experiments.runs.state_dicts import load_initial_weights
from experiments.training.compilation import compile_in_place, use_channels_last
from experiments.training.devices import check_accelerator, counting_gpus
from experiments.training.pretrained import (
    fill_input_from_weights,
    read_initial_weights,
    require_image_shape,
    weights_file,
)
from experiments.training.process import prepare_process
from experiments.training.steps_per_execution import set_up_lists

Config = Mapping[str, Any]
REFUSALS = (
    InstantiationException,
    MisconfigurationException,
    OmegaConfBaseException,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    ImportError,
    AttributeError,
)


@dataclass
class Experiment:
    """What a config describes, ready for ``trainer.fit(classifier, data)``."""

    data: LightningDataModule
    classifier: LightningModule
    trainer: Trainer


@contextmanager
def constructing(name: str) -> Iterator[None]:
    """Turn a constructor's refusal of its arguments into a UserError that gives the reason alone."""
    try:
        yield
    except REFUSALS as error:
        cause = error.__cause__ or error if isinstance(error, InstantiationException) else error
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"{name}: {str(cause).strip()}") from error


def make(config: Config, key: str | None = None, **objects: Any) -> Any:
    """Call a config's ``_target_`` with its other keys, and with ``objects`` that are built already.

    ``key`` is where the config stands in the whole one, for the message.

    Raises:
        UserError: if the target cannot be found, or refuses its arguments.
    """
    with constructing(key or config["_target_"]):
        if objects:  # as partial arguments: passed through Hydra they would be copied and converted
            return instantiate({**config, "_partial_": True}, _convert_="all")(**objects)
        return instantiate(dict(config), _convert_="all")


def only_accepted(target: str, offered: Config) -> dict[str, Any]:
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
        channels, *sides = shape
        found |= {"in_channels": channels, "image_size": sides, "in_features": math.prod(shape)}
    return found


def filled(config: Config, data: LightningDataModule, **more: Any) -> dict[str, Any]:
    """A network's or metric's config with what it leaves null filled in from the data, or from what rules before."""
    known = only_accepted(config["_target_"], {**facts(data), **more})
    return {**config, **{name: value for name, value in known.items() if config.get(name) is None}}


def net_of(model: Config) -> Config | None:
    """The network's config, if the model has one and takes one: a LightningModule of a user's own may do without."""
    return model.get("net") if only_accepted(model["_target_"], {"net": None}) else None


def make_net(config: Config, image_shape: list[int]) -> nn.Module:
    """The network; one of timm with its weights, if it takes such images."""
    objects: dict[str, Any] = {}
    if path := weights_file(config):
        with torch.device("meta"):
            names = set(make({**config, "weights": None}, "model.net").state_dict())
        objects["weights"] = read_initial_weights(path, names)
    net: nn.Module = make(config, "model.net", **objects)
    if config["_target_"] == PRETRAINED and image_shape:
        require_image_shape(net, config["name"], image_shape)
    return net


def weighted(config: Config, data: LightningDataModule) -> dict[str, Any]:
    """The loss's config; one that takes ``class_counts`` and leaves them null gets those of the train split."""
    if "class_counts" in only_accepted(config["_target_"], {"class_counts": None}) and not config.get("class_counts"):
        if not hasattr(data, "class_counts"):
            raise UserError(
                f"{config['_target_']} needs loss.class_counts: {type(data).__name__} does not count them"
            )
        return {**config, "class_counts": data.class_counts()}  # reads the data
    return dict(config)


def build_data(config: Config) -> LightningDataModule:
    """The data set, from all that stands in its group."""
    try:
        data: LightningDataModule = make(config["data"], "data")
    except UserError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UserError(f"{error}; data=custom gives a data set of your own no key but those you add") from error
    absent = [name for name in ("image_shape", "class_names") if not hasattr(data, name)]
    if absent and isinstance(data, ImageDataModule):
        raise UserError(f"data: {type(data).__name__} must state {' and '.join(absent)}")
    return data


def build_classifier(config: Config, data: LightningDataModule) -> LightningModule:
    """The LightningModule around the network, with what it takes of loss, optimizer, scheduler, metrics and card."""
    net = filled(own, data) if (own := net_of(config["model"])) else {}
    roomy = {"num_classes": net["num_classes"]} if net.get("num_classes") else {}  # more than the data have
    card = {
        "net": without_pretrained_weights(net),
        "image_shape": list(getattr(data, "image_shape", [])),
        "mean": list(getattr(data, "mean", [])),
        "std": list(getattr(data, "std", [])),
        "class_names": list(getattr(data, "class_names", [])),
    }
    offered = {
        "net": lambda: make_net(net, card["image_shape"]),
        "loss": lambda: make(weighted(config["loss"], data), "loss"),
        "optimizer": lambda: make(config["optimizer"], "optimizer"),
        "scheduler": lambda: config["scheduler"] and make(config["scheduler"], "scheduler"),
        "metrics": lambda: {
            name: make(filled(one, data, **roomy), f"metrics.{name}")
            for name, one in config["metrics"].items()
            if one
        },
        "param_groups": lambda: {
            name: make(one, f"param_groups.{name}") for name, one in (config.get("param_groups") or {}).items() if one
        },
        "num_classes": lambda: (facts(data) | roomy).get("num_classes"),
        "card": lambda: card,
        "monitor": lambda: config["monitor"],
    }
    rest = {name: value for name, value in config["model"].items() if name != "net"}
    taken = {name: create() for name, create in only_accepted(rest["_target_"], offered).items()}
    module: LightningModule = make(rest, "model", **taken)
    return module


def build_trainer(config: Config, moved_from: str | None = None) -> Trainer:
    """The Trainer with its callbacks and loggers; a callback or logger that is null is off."""
    check_accelerator(config["trainer"]["accelerator"])
    callbacks = [kept_average(make(one, f"callbacks.{name}")) for name, one in config["callbacks"].items() if one]
    if config["trainer"].get("enable_progress_bar") is False:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    callbacks.sort(key=lambda callback: not isinstance(callback, Freeze))  # before those that show what is frozen
    bars = [callback for callback in callbacks if isinstance(callback, ProgressBar)]
    if len(bars) > 1:  # ours steps aside for another
        callbacks = [callback for callback in callbacks if type(callback) is not Progress]
    loggers = [make(one, f"logger.{name}") for name, one in (config["logger"] or {}).items() if one]
    if loggers:
        loggers.append(MetricsRecord(config["run_dir"]))
    plugins = config["trainer"].get("plugins") or []
    plugins = [make(one, "trainer.plugins") for one in ([plugins] if isinstance(plugins, Mapping) else plugins)]
    if any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        raise UserError(
            "trainer.plugins: runs have a CheckpointIO of their own, which writes whole files; leave yours out"
        )
    moved = (moved_from, str(config["run_dir"])) if moved_from else None
    given: dict[str, Any] = {
        "callbacks": callbacks,
        "logger": loggers,
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "enable_progress_bar": bool(bars),
        "plugins": [*plugins, AtomicCheckpointIO(moved)],
    }
    if config["trainer"].get("barebones"):  # which takes none of them
        given = dict.fromkeys((*given, "log_every_n_steps", "num_sanity_val_steps"))
    with counting_gpus(config["trainer"]["devices"]):
        trainer: Trainer = make(config["trainer"], "trainer", **given)
    if not hasattr(trainer, "val_check_interval"):  # it is a time; EarlyStopping asks for it all the same
        trainer.val_check_interval = 0
    return trainer


def build(config: Config, moved_from: str | None = None) -> Experiment:
    """Build everything that a composed config describes, from its seed: every build of a config is the same.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns.
        moved_from: the folder that a resumed run lay in before.

    Raises:
        UserError: if the config names what does not exist, or values that do not go together.
    """
    prepare_process()
    config = fill_input_from_weights(validated(config))
    seed_everything(config["seed"], workers=True, verbose=False)
    torch.set_float32_matmul_precision(config["matmul_precision"])
    data = build_data(config)
    classifier = build_classifier(config, data)
    if config["init_from"] is not None:
        load_initial_weights(getattr(classifier, "net", classifier), config["init_from"], config["init_from_strict"])
    if config["compile"]:
        compile_in_place(classifier)
    trainer = build_trainer(config, moved_from)
    use_channels_last(classifier, config["channels_last"], trainer.strategy.root_device)
    set_up_lists(config["steps_per_execution"], config["cuda_graphs"], data, classifier, trainer)
    return Experiment(data, classifier, trainer)
