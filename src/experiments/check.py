"""What is wrong with a config, said before anything is imported, built or written: the first pass, without torch.

All mistakes at once, each with its place. What needs the classes themselves is in ``signatures``, the second pass.
"""

import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from experiments import secrecy
from experiments.composition import CONF, did_you_mean, job_values
from experiments.errors import UserError, stop

Config = Mapping[str, Any]
OURS = ("experiments.", "torch.", "torchmetrics.", "lightning.")
MUST_BE_THERE = ("model", "data", "loss", "optimizer", "trainer")
GROUPS = (*MUST_BE_THERE, "scheduler", "callbacks", "logger", "metrics")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# ---- values: what each may be, whatever the class says of its type


def _number(low: float, high: float = math.inf, words: str = "", above: bool = False) -> tuple[Any, str]:
    def test(value: Any) -> bool:
        finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return finite and (low < value if above else low <= value) and value <= high

    words = words or (f"more than {low:g}" if above else f"at least {low:g}")
    return test, f"a number {words}" + (f", up to {high:.10g}" if high < math.inf else "")


def _whole(low: int, high: float = math.inf, also: tuple[Any, ...] = ()) -> tuple[Any, str]:
    def test(value: Any) -> bool:
        return value in also or (type(value) is int and low <= value <= high)

    words = f"a whole number from {low} to {high:.10g}" if high < math.inf else f"a whole number of at least {low}"
    return test, " or ".join([words, *map(str, also)])


def _one_of(*choices: Any) -> tuple[Any, str]:
    return lambda value: value in choices, "one of " + ", ".join(map(str, choices))


def _share_or_count(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf and (value <= 1 or value == int(value))


def _part_of_an_epoch(value: Any) -> bool:
    return (type(value) is int and value >= 0) or (type(value) is float and 0 <= value <= 1)


def _widths(value: Any) -> bool:
    return all(type(width) is int and width > 0 for width in (value if isinstance(value, list) else [value]))


def _is_name(value: Any) -> bool:
    parts = Path(str(value)).parts
    return bool(parts) and ".." not in parts and not Path(str(value)).is_absolute() and "\0" not in str(value)


def _pair_below_1(value: Any) -> bool:
    return len(value) == 2 and all(type(part) in (int, float) and 0 <= part < 1 for part in value)


PROBABILITY = (lambda value: type(value) in (int, float) and 0 <= value < 1, "at least 0 and less than 1")
POSITIVE, NOT_NEGATIVE = _number(0, above=True), _number(0)
COUNT = _whole(1)
PART = (_part_of_an_epoch, "a fraction from 0.0 to 1.0, or a whole number of batches")
EXTENT = (_share_or_count, "a fraction between 0 and 1, or a whole number of images")
WIDTHS = (_widths, "whole numbers of at least 1")

#: key -> (test, words); the first that matches rules. Only for classes of ours and of torch, never for a user's own.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _whole(0, 2**32 - 1),
    "steps_per_execution": _whole(1, also=("auto",)),
    "channels_last": (lambda value: value == "auto" or isinstance(value, bool), "auto, true or false"),
    "name": (_is_name, "a name, since a folder below runs gets it"),
    "data.*batch_size": COUNT,
    "data.val_size": EXTENT,
    "data.test_size": EXTENT,
    "data.limit": EXTENT,
    "data.num_folds": _whole(2),
    "data.fold": _whole(0),
    "model.net.dropout": PROBABILITY,
    "model.net.mlp_ratio": POSITIVE,
    **{
        f"model.net.{name}": COUNT
        for name in ("in_channels", "in_features", "num_classes", "patch_size", "embed_dim", "depth", "num_heads")
    },
    **{f"model.net.{name}": COUNT for name in ("num_layers", "blocks_per_stage", "stride", "kernel_size")},
    **{f"model.net.{name}": WIDTHS for name in ("hidden_features", "channels", "image_size")},
    "loss.label_smoothing": _number(0, 1, "from 0"),
    "loss.gamma": NOT_NEGATIVE,
    "loss.p": _one_of(1, 2),
    "optimizer.lr": POSITIVE,
    "optimizer.betas": (_pair_below_1, "two numbers, each at least 0 and less than 1"),
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": NOT_NEGATIVE,
    "optimizer.alpha": _number(0, 1, "from 0"),
    "scheduler.warmup": PROBABILITY,
    "scheduler.final_factor": PROBABILITY,
    "scheduler.pct_start": _number(0, 1, "from 0"),
    "scheduler.*div_factor": POSITIVE,
    "scheduler.step_size": COUNT,
    "scheduler.patience": _whole(0),
    "scheduler.mode": _one_of("min", "max"),
    "scheduler.factor": POSITIVE,
    "metrics.*.top_k": COUNT,
    "metrics.*.n_bins": COUNT,
    "trainer.accelerator": _one_of("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.devices": (
        lambda value: value == -1 or not isinstance(value, (int, float)) or (type(value) is int and value > 0),
        "a count of at least 1, -1 or auto for all of them, or a list of indices",
    ),
    "trainer.num_nodes": COUNT,
    "trainer.max_epochs": _whole(1, also=(-1,)),
    "trainer.max_steps": _whole(1, also=(-1,)),
    "trainer.min_*": COUNT,
    "trainer.limit_*_batches": PART,
    "trainer.val_check_interval": (
        lambda value: type(value) not in (int, float) or (_part_of_an_epoch(value) and value > 0),
        "a fraction of an epoch up to 1.0, or a whole number of batches",
    ),
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.log_every_n_steps": COUNT,
    "trainer.num_sanity_val_steps": _whole(0, also=(-1,)),
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.gradient_clip_val": POSITIVE,
    "trainer.gradient_clip_algorithm": _one_of("norm", "value"),
    "trainer.profiler": (
        lambda value: not isinstance(value, str) or value in ("simple", "advanced", "pytorch", "xla"),
        "one of simple, advanced, pytorch",
    ),
    "callbacks.*.mode": _one_of("min", "max"),
    "callbacks.*.patience": _whole(0),
    "callbacks.*.decay": PROBABILITY,
    "callbacks.*.min_delta": NOT_NEGATIVE,
    "callbacks.*.refresh_rate": _whole(0),
    "callbacks.*.every_minutes": POSITIVE,
    "callbacks.*.every_n_*": COUNT,
    "callbacks.*.update_every_n_steps": COUNT,
    "callbacks.*.update_starting_at_step": _whole(0),
    "callbacks.*.keep": COUNT,
    "callbacks.*.num_images": COUNT,
    "callbacks.*.save_top_k": _whole(0, also=(-1,)),
    "callbacks.*.max_depth": _whole(0, also=(-1,)),
    "augment.*.margin": _whole(0, 1000),
    "augment.*.size": _whole(1, 10_000),
    "augment.*.spacing": _whole(1, 1000),
    "augment.*.magnitude": _number(0, 1000, "from 0"),
    "augment.*.degrees": _number(0, 180, "from 0"),
    "augment.*.translate": _number(0, 1, "from 0"),
    "augment.*.shear": _number(0, 80, "from 0"),
    "augment.*.padding": _one_of("zeros", "border", "reflection"),
    "augment.*.horizontal": _number(0, 1, "from 0"),
    "augment.*.vertical": _number(0, 1, "from 0"),
    "augment.*.alpha": _number(1e-3, 1000, "from 0.001"),
}

FAMILIES: dict[str, tuple[Any, str]] = {
    "switch": (bool, "true or false"),
    "number": ((int, float), "a number"),
    "text": (str, "text"),
    "list": ((list, tuple), "a list"),
    "mapping": (Mapping, "a mapping"),
}
#: Where what stands in the YAML is one of several kinds of value.
ALSO = {
    "devices": ("text", "list"),
    "image_size": ("list",),
    "val_check_interval": ("text",),
    "channels_last": ("switch",),
}


def _family(value: Any) -> str | None:
    return next((name for name, (types, _) in FAMILIES.items() if isinstance(value, types)), None)


def _of_other_kind(key: str, value: Any, default: Any) -> str | None:
    """What ``value`` must be, if it cannot stand where the YAML has ``default``."""
    expected, found = _family(default), _family(value)
    open_default = expected is None or (isinstance(default, str) and ("${" in default or default == "???"))
    if value is None or open_default or found == expected:
        return None
    if found in ALSO.get(key, ()) or (isinstance(value, Mapping) and "_target_" in value):
        return None
    if expected == "text" and found == "number":  # precision=16; the class's annotation has the last word
        return None
    example = f", such as [{value}]" if expected == "list" and found in ("number", "text") else f", such as {default}"
    return FAMILIES[str(expected)][1] + (example if expected in ("number", "list") else "")


# ---- what the YAML files say


@lru_cache(maxsize=1)
def _files() -> dict[Path, tuple[str, Any]]:
    """Text and content of every file under conf, the most particular first."""
    rank = {name: number for number, name in enumerate(("local", "debug", "experiment"))}
    found = {}
    for path in sorted(
        CONF.rglob("*.yaml"), key=lambda path: (rank.get(path.parent.name, 3), path == CONF / "train.yaml")
    ):
        text = path.read_text(encoding="utf-8")
        try:
            found[path] = text, yaml.load(text, _Loader)
        except yaml.YAMLError:  # Hydra will say so, if it is used
            continue
    return found


@lru_cache(maxsize=1)
def _defaults() -> dict[str, dict[str, Any]]:
    """For every ``_target_`` under conf, its keys and their values there."""
    found: dict[str, dict[str, Any]] = {}

    def gather(content: Any) -> None:
        if isinstance(content, dict):
            if isinstance(content.get("_target_"), str):
                known = found.setdefault(content["_target_"], {})
                known |= {key: value for key, value in content.items() if known.get(key) is None}
            for value in content.values():
                gather(value)

    for _, content in _files().values():
        gather(content)
    return found


def _line(node: Any, path: Sequence[str], value: Any) -> int | None:
    """The line where a YAML node sets ``path`` to ``value``."""
    if isinstance(node, yaml.MappingNode):
        for key, below in node.value:
            if key.value == path[0]:
                if len(path) > 1:
                    return _line(below, path[1:], value)
                said = yaml.load(yaml.serialize(below), _Loader)
                return key.start_mark.line + 1 if said == value or _family(value) == "mapping" else None
    return None


def _chosen(typed: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The choices of groups that were typed or stand in the defaults list, those that rule last at the end."""
    for entry in _files()[CONF / "train.yaml"][1]["defaults"]:
        if isinstance(entry, dict):
            yield from ((group, str(choice)) for group, choice in entry.items())
    for override in typed:
        group, _, choices = override.partition("=")
        yield from ((group, choice.strip()) for choice in choices.strip("[]").split(","))


def place(name: str, value: Any, typed: Sequence[str]) -> str:
    """Where a config's value was given: on the command line, or in which line of which file."""
    for override in typed:
        key = override.partition("=")[0].lstrip("+~").replace("/", ".").partition("@")[0]
        if (CONF / key).is_dir() and name != key:  # a choice, not the value itself
            continue
        if f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}."):
            return "command line"
    chosen = {(group, choice): -number for number, (group, choice) in enumerate(_chosen(typed))}
    for path, (text, _) in sorted(
        _files().items(), key=lambda file: chosen.get((file[0].parent.name, file[0].stem), 1)
    ):
        package = () if "@package _global_" in text or path.parent == CONF else (path.parent.name,)
        parts = name.split(".")
        if tuple(parts[: len(package)]) == package and (keys := parts[len(package) :]):
            line = _line(yaml.compose(text, Loader=_Loader), keys, value)
            if line is not None:
                return f"conf/{path.relative_to(CONF).as_posix()}:{line}"
    return ""


# ---- the pass


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
    defaults = _defaults().get(str(target), {})
    for key, part in value.items():
        if key not in ("_target_", "_partial_"):
            yield f"{name}.{key}", part, ours, defaults
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


def _values(config: Config) -> Iterator[tuple[str, Any, str]]:
    known, every = _files()[CONF / "train.yaml"][1], "\n".join(text for text, _ in _files().values())
    keys = [key for key in (*known, *GROUPS, "augment") if key not in ("defaults", "hydra")]
    for key, value in config.items():
        if key not in keys and not re.search(rf"\$\{{{re.escape(key)}\b", every):
            yield key, value, f"is a key that nothing reads.{did_you_mean(key, keys)}"
        elif key in known and (kind := _of_other_kind(key, value, known[key])):
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
        yield from _ruled(name, value)
    for group in (*GROUPS, "augment"):
        for name, value, ours, defaults in leaves(config.get(group), group):
            if not ours or (group == "data" and name.startswith("data.augment.")):
                continue
            key = name.rpartition(".")[2]
            if kind := _of_other_kind(key, value, defaults.get(key)):
                yield name, value, f"must be {kind}"
            else:
                yield from _ruled(name, value)


def _ruled(name: str, value: Any) -> Iterator[tuple[str, Any, str]]:
    rule = next((rule for pattern, rule in RULES.items() if fnmatchcase(name, pattern)), None)
    if rule is None or value is None or (isinstance(value, Mapping) and "_target_" in value):
        return
    test, words = rule
    try:
        fine = test(value)
    except (TypeError, ValueError, OverflowError):
        fine = False
    if not fine:
        near = did_you_mean(value, words.removeprefix("one of ").split(", ")) if isinstance(value, str) else ""
        yield name, value, f"must be {words}.{near}" if near else f"must be {words}"


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if path.stem != "custom")


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


def _files_and_folders(config: Config) -> Iterator[tuple[str, Any, str]]:
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


def _combinations(config: Config) -> Iterator[tuple[str, Any, str]]:
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
        elif {"loss": "max", "accuracy": "min"}.get(str(monitor).rpartition("/")[2]) == mode:
            better = "min" if mode == "max" else "max"
            yield f"callbacks.{key}.mode", mode, f"keeps the worst {monitor}: it must be {better}"


def _secrets(config: Config) -> Iterator[str]:
    known = secrecy.in_environment()

    def below(value: Any, name: str) -> Iterator[str]:
        if isinstance(value, (Mapping, list, tuple)):
            parts = value.items() if isinstance(value, Mapping) else ((str(i), part) for i, part in enumerate(value))
            for key, part in parts:
                yield from below(part, f"{name}.{key}" if name else str(key))
        elif secrecy.holds_secret(name, value, known):
            yield (
                f"{name} holds a secret, and a run writes its config down: leave it out and put it into the "
                "environment, where the library looks for it (WANDB_API_KEY, MLFLOW_TRACKING_USERNAME and _PASSWORD)"
            )

    yield from below(config, "")


def mistakes(config: Config, typed: Sequence[str] = (), files: bool = True) -> list[str]:
    """Everything that is wrong with a composed config as far as one sees without its classes.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns.
        typed: the command line's overrides, to say which mistakes come from there.
        files: whether to look for the files and folders that it names.
    """
    if secrets := list(_secrets(config)):  # alone: no other message is to repeat one
        return secrets
    found = [*_values(config)]
    wrong = {name for name, _, _ in found}
    rest = [*_combinations(config), *(_files_and_folders(config) if files else ())]
    found += [fault for fault in rest if fault[0] not in wrong]
    return [said(*fault, typed) for fault in dict(zip([f[0] for f in found], found, strict=True)).values()]


def said(name: str, value: Any, fault: str, typed: Sequence[str]) -> str:
    """One mistake in one line: the key, its value, what it must be, and where it stands."""
    where = place(name, value, typed)
    given = f"{name}={shown(value)}" if value != "" and not isinstance(value, Mapping) else name
    return f"{given} {fault}" + (f" ({where})" if where else "")


def require(faults: Sequence[str]) -> None:
    """Raise UserError with all mistakes, if there are any."""
    if len(faults) == 1:
        raise UserError(faults[0])
    if faults:
        raise UserError(f"{len(faults)} mistakes in the config:\n  " + "\n  ".join(faults))


class Gate(Callback):
    """Hydra's callback that ends a command with all its mistakes, before Hydra makes a folder or starts a job.

    Of a grid, every point is looked at before the first starts.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the one run."""
        self._end_over({"": config})

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at every point of the grid; other sweepers choose theirs later."""
        self._end_over(dict(grid(config)))

    def _end_over(self, configs: Mapping[str, DictConfig]) -> None:
        try:
            faults: dict[str, str] = {}  # a mistake, and the point of the grid where it is seen first
            for point, config in configs.items():
                typed = list(config.hydra.overrides.task)
                for fault in mistakes(job_values(config), typed):
                    faults.setdefault(fault, point)
            require([f"{fault} (at {point})" if point else fault for fault, point in faults.items()])
        except UserError as error:
            stop(error)
        except Exception:  # Hydra would turn it into a warning
            sys.excepthook(*sys.exc_info())
            raise SystemExit(1) from None


def grid(config: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """The configs of a grid's points by what makes each different; none for a sweeper that chooses them later."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    loader = GlobalHydra.instance().config_loader()
    if not str(config.hydra.sweeper._target_).endswith((".BasicSweeper", ".GridSweeper")):
        return
    typed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    try:
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(
            [*typed, *config.hydra.overrides.task]
        )
        (points,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        for number, point in enumerate(points):
            composed = loader.load_sweep_config(config, list(point))
            with open_dict(composed):
                composed.hydra.job.id, composed.hydra.job.num = str(number), number
            yield " ".join(point), composed
    except HydraException:  # it says so by itself, when it comes to that point
        return
