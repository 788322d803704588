"""The looks at a config: values, files and folders, and what does not go together."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.check.rules import WORST, of_other_kind, ruled
from experiments.check.sources import defaults, files
from experiments.composition import did_you_mean
from experiments.config import conf_files

Config = Mapping[str, Any]
OURS = ("experiments.", "torch.", "torchmetrics.", "lightning.")
MUST_BE_THERE = ("model", "data", "loss", "optimizer", "trainer")
GROUPS = (*MUST_BE_THERE, "scheduler", "callbacks", "logger", "metrics")


def shown(value: Any) -> str:
    """A value as one would type it; of a long one, both ends."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else f"{text[:37]}...{text[-40:]}"


def leaves(value: Any, name: str, ours: bool = True) -> Iterator[tuple[str, Any, bool, Mapping[str, Any]]]:
    """Every value below a config's key: its name, itself, whether its class is known, and the defaults beside it."""
    if not isinstance(value, Mapping):
        return
    target = value.get("_target_")
    ours = str(target).startswith(OURS) if target is not None else ours
    known = defaults().get(str(target), {})
    for key, part in value.items():
        if key not in ("_target_", "_partial_"):
            yield f"{name}.{key}", part, ours, known
            yield from leaves(part, f"{name}.{key}", ours)


def targets(config: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every part of a config that names a class, by its key."""

    def below(value: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if isinstance(value, Mapping):
            if "_target_" in value:
                yield name, value
            for key, part in value.items():
                yield from below(part, f"{name}.{key}")

    for group in GROUPS:
        yield from below(config.get(group), group)


def values(config: Config) -> Iterator[tuple[str, Any, str]]:
    """Keys that nothing reads or that are missing, and values that cannot be what they stand for."""
    known, every = files()["train.yaml"].content, "\n".join(file.text for file in files().values())
    keys = [key for key in (*known, *GROUPS, "augment") if key not in ("defaults", "hydra")]
    for key, value in config.items():
        if key not in keys and not re.search(rf"\$\{{{re.escape(key)}\b", every):
            unplaced = f" Does a file of conf/{key}/ lack the line  # @package _global_  ?"
            near = did_you_mean(key, keys) or (unplaced if conf_files.is_group(key) else "")
            yield key, value, f"is a key that nothing reads.{near}"
        elif key in known and (kind := of_other_kind(key, value, known[key])):
            yield key, value, f"must be {kind}"
    for key in keys:
        if key not in config and key != "augment":
            yield key, "", "is missing: every run has one, so nothing may take it away (~)"
    for key in ("accelerator", "max_epochs"):
        if isinstance(config.get("trainer"), Mapping) and key not in config["trainer"]:
            yield f"trainer.{key}", "", "is missing: every run has one, so nothing may take it away (~)"
    for group in (*GROUPS, "augment"):
        value = config.get(group)
        if group not in config:
            continue
        if value is None and group in MUST_BE_THERE:
            yield (
                group,
                value,
                f"leaves the run without its {group}: choose one, such as {group}={_choices(group)[0]}",
            )
        elif value is None and group in ("callbacks", "metrics"):
            advice = {"callbacks": "callbacks=minimal keeps checkpoints and progress; a callback that is null is off"}
            yield group, value, f"must be a mapping: {advice.get(group, 'metrics=[] adds none')}"
        elif value is not None and not isinstance(value, Mapping):
            yield group, value, f"must be one of {', '.join(_choices(group))}"
        elif group in MUST_BE_THERE and "_target_" not in (value or {}):
            yield f"{group}._target_", None, f"must name a class: choose one by {group}={_choices(group)[0]}"
        elif group in ("callbacks", "logger", "metrics", "augment"):
            for key, part in (value or {}).items():
                if part is not None and not (isinstance(part, Mapping) and "_target_" in part):
                    yield f"{group}.{key}", part, "must be null, which turns it off, or name a class as _target_"
    for name, value in config.items():
        yield from ruled(name, value)
    for group in (*GROUPS, "augment"):
        for name, value, ours, beside in leaves(config.get(group), group):
            if not ours or (group == "data" and name.startswith("data.augment.")):
                continue
            key = name.rpartition(".")[2]
            if kind := of_other_kind(key, value, beside.get(key)):
                yield name, value, f"must be {kind}"
            else:
                yield from ruled(name, value)


def _choices(group: str) -> list[str]:
    return [choice for choice in conf_files.choices(group) if choice != "custom"]


def _at(config: Any, name: str) -> Any:
    for key in name.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def section(config: Any, name: str) -> Mapping[str, Any]:
    """The part of a config under a key; empty where there is none."""
    part = _at(config, name)
    return part if isinstance(part, Mapping) else {}


def _number_at(config: Any, name: str) -> float | None:
    value = _at(config, name)
    return value if type(value) in (int, float) else None


def files_and_folders(config: Config) -> Iterator[tuple[str, Any, str]]:
    """What is to be read and is not there, or is to be written and cannot be."""
    weights, root, cache = config.get("init_from"), _at(config, "data.root"), _at(config, "data.cache")
    if isinstance(weights, str) and not _is(Path.is_file, weights):
        yield "init_from", weights, "is no file: name a state_dict (model.pth) or a checkpoint"
    if isinstance(root, str):
        if not _is(Path.is_dir, root) and _is(Path.exists, root):
            yield "data.root", root, "is a file: name the folder that data sets lie in"
        elif str(_at(config, "data._target_")).endswith(".ImageFolder") and not _is(Path.is_dir, root, "train"):
            yield "data.root", root, "has no folder train: images belong in <data.root>/train/<class>/"
    for name, folder in (("data.cache", cache), ("run_dir", config.get("run_dir"))):
        if isinstance(folder, str) and (wrong := _cannot_hold_files(folder)):
            yield name, folder, wrong


def _is(test: Callable[[Path], bool], *parts: str) -> bool:
    try:
        return test(Path(*parts).expanduser())
    except (OSError, ValueError, RuntimeError):  # too long a name, a null byte, no such user
        return False


def _cannot_hold_files(folder: str) -> str | None:
    """Why nothing can be written to a folder that is there or is to be made."""
    try:
        path = Path(folder).expanduser().absolute()
        there = next(parent for parent in (path, *path.parents) if parent.exists())
    except (OSError, ValueError, RuntimeError) as error:
        return f"is no folder's name: {getattr(error, 'strerror', None) or error}"
    if not there.is_dir():
        return f"cannot be a folder: {there} is a file"
    return None if os.access(there, os.W_OK | os.X_OK) else f"cannot be written: {there} does not allow it"


def combinations(config: Config) -> Iterator[tuple[str, Any, str]]:
    """What is right by itself and does not go together."""

    def get(name: str) -> Any:
        return _at(config, name)

    if get("check") is True and get("resume") is not None:
        yield "check", True, "looks at new runs: leave out resume"
    folds, fold = get("data.num_folds"), get("data.fold")
    if str(get("data._target_")).startswith(OURS):
        if (folds is None) != (fold is None):
            missing = "data.fold" if fold is None else "data.num_folds"
            yield missing, None, f"must be given with data.num_folds={shown(folds)} and data.fold={shown(fold)}"
        elif type(folds) is int and type(fold) is int and 0 <= folds <= fold:
            yield "data.fold", fold, f"must be from 0 to {folds - 1}, with data.num_folds={folds}"
    least, most = _number_at(config, "trainer.min_epochs"), _number_at(config, "trainer.max_epochs")
    if least is not None and most is not None and 0 < most < least:
        yield "trainer.min_epochs", least, f"exceeds trainer.max_epochs={most}"
    if get("optimizer.nesterov") is True and get("optimizer.momentum") == 0:
        yield "optimizer.nesterov", True, "needs a momentum above 0: optimizer.momentum=0.9"
    every = section(config, "trainer").get("check_val_every_n_epoch", 1)
    if every is None and str(get("scheduler._target_")).endswith("OnPlateau"):
        yield (
            "trainer.check_val_every_n_epoch",
            None,
            "leaves epochs without a validation, which scheduler=plateau watches: set it to 1",
        )
    half = get("trainer.precision") in ("16-mixed", "16", 16)
    if half and get("optimizer.fused") is True and get("trainer.gradient_clip_val"):
        yield (
            "trainer.gradient_clip_val",
            get("trainer.gradient_clip_val"),
            (
                "cannot act on a fused optimizer in 16-bit precision: add optimizer.fused=false, or use "
                "trainer.precision=bf16-mixed"
            ),
        )
    mixing = [
        key
        for key, part in section(config, "augment").items()
        if str(_at(part, "_target_")).endswith(("Mixup", "Cutmix"))
    ]
    if mixing and get("loss._target_") in ("torch.nn.MultiMarginLoss", "torch.nn.NLLLoss"):
        yield (
            "loss._target_",
            get("loss._target_"),
            (f"takes whole classes as labels, and augment={mixing[0]} blends them: use loss=cross_entropy or focal"),
        )
    callbacks = {key: part for key, part in section(config, "callbacks").items() if isinstance(part, Mapping)}
    if get("trainer.overfit_batches") and str(get("data._target_")).startswith(OURS):
        yield (
            "trainer.overfit_batches",
            get("trainer.overfit_batches"),
            "does not go with data in memory: debug=overfit trains on a few images, data.limit on any number of them",
        )
    if get("trainer.enable_progress_bar") is False and "progress" in callbacks:
        yield "trainer.enable_progress_bar", False, "needs callbacks.progress=null beside it"
    loggers = [part for part in section(config, "logger").values() if part]
    for key, part in callbacks.items():
        if str(part.get("_target_")).endswith(".LearningRateMonitor") and not loggers:
            yield (
                f"callbacks.{key}",
                "",
                f"needs a logger, and there is none: add callbacks.{key}=null, or choose one, such as logger=csv",
            )
    if get("model._target_") == "experiments.classifier.Classifier":
        yield from _monitored(config, callbacks)


def _monitored(config: Config, callbacks: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Callbacks that watch what is never logged, or watch it the wrong way round."""
    no_validation = _number_at(config, "trainer.limit_val_batches") == 0
    every, epochs = (_number_at(config, f"trainer.{key}") for key in ("check_val_every_n_epoch", "max_epochs"))
    never = every is not None and epochs is not None and 0 < epochs < every
    measured = ["loss", "accuracy", *(name for name, part in section(config, "metrics").items() if part)]
    logged = ["train/loss", "train/accuracy", *(f"val/{name}" for name in measured)]
    for key, part in callbacks.items():
        name, monitor, mode = f"callbacks.{key}.monitor", part.get("monitor"), part.get("mode")
        if monitor is None or not str(part.get("_target_")).startswith("lightning."):
            continue
        if monitor not in logged and not str(part.get("_target_")).endswith("ThroughputMonitor"):
            near = did_you_mean(str(monitor), logged)
            yield name, monitor, f"is not logged.{near} There are {', '.join(logged)}"
        elif str(monitor).startswith("val/") and (no_validation or never):
            cause = "trainer.limit_val_batches=0" if no_validation else f"trainer.check_val_every_n_epoch={every}"
            yield (
                name,
                monitor,
                f"is never measured: {cause} leaves no validation. Watch train/loss, or set callbacks.{key}=null",
            )
        elif WORST.get(str(monitor).rpartition("/")[2]) == mode:
            better = "min" if mode == "max" else "max"
            yield f"callbacks.{key}.mode", mode, f"keeps the worst {monitor}: it must be {better}"
