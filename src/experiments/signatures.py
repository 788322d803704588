"""Whether every class of a config exists, takes what it is given, and goes with the others: the second pass.

Classes are imported and their signatures read; nothing is built. ``check`` is the first pass, without torch.
"""

import importlib
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any, Literal, Union, get_args, get_origin

from torch import Tensor

from experiments.check import said, section, shown, targets
from experiments.composition import did_you_mean

Config = Mapping[str, Any]
Fault = tuple[str, Any, str]
FACTS = ("num_classes", "in_channels", "image_size", "in_features")
#: What ``build`` adds to what stands in a config: to a key, or to every key below it.
GIVEN = {
    "model": ("net", "loss", "optimizer", "scheduler", "metrics", "num_classes", "card"),
    "model.net": FACTS,
    "metrics": FACTS,
    "loss": ("class_counts",),
    "trainer": ("callbacks", "logger", "plugins"),
}


class NotFound(Exception):
    """A ``_target_`` that cannot be imported; the message says why."""


def locate(target: object) -> Any:
    """What a ``_target_`` names.

    Raises:
        NotFound: if there is no such thing; the message gives the root cause and what there is.
    """
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise NotFound("is no import path, such as torch.optim.Adam")
    parts = target.split(".")
    found: Any = _imported(parts[0])
    for number, part in enumerate(parts[1:], 1):
        if not hasattr(found, part) and isinstance(found, types.ModuleType) and hasattr(found, "__path__"):
            try:
                _imported(".".join(parts[: number + 1]))
            except NotFound as error:
                if "there is no module" not in str(error):
                    raise
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            raise NotFound(f"cannot be found: {'.'.join(parts[:number])} has no {part}.{did_you_mean(part, names)}")
        found = getattr(found, part)
    if not callable(found):
        raise NotFound(f"is a {type(found).__name__}, not a class: name one in it, such as {target}.<Name>")
    return found


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise NotFound(
                f"cannot be imported: there is no module {error.name}, neither installed nor in {os.getcwd()}"
            ) from error
        cause: BaseException = error
    except (Exception, SystemExit) as error:
        cause = error
    frames = [frame for frame in extract_tb(cause.__traceback__) if "importlib" not in frame.filename]
    file, line = (frames[-1].filename, frames[-1].lineno) if frames else (name, None)
    if isinstance(cause, SyntaxError):
        file, line = cause.filename or file, cause.lineno
    reason = getattr(cause, "msg", None) or str(cause)
    raise NotFound(
        f"cannot be imported: {name} fails with {type(cause).__name__}: {reason} ({Path(file).name}:{line})"
    ) from cause


def taken(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], dict[str, Any], bool]:
    """The arguments that a class or function takes by name, their annotations, and whether it takes any other."""
    parameters: dict[str, inspect.Parameter] = {}
    annotations: dict[str, Any] = {}
    makers = (
        [vars(cls)["__init__"] for cls in target.__mro__ if "__init__" in vars(cls)]
        if inspect.isclass(target)
        else [target]
    )
    for number, maker in enumerate(makers):
        if maker is object.__init__:
            break
        try:
            signature = inspect.signature(maker)
        except (TypeError, ValueError):
            return parameters, annotations, True
        try:
            hints = typing.get_type_hints(maker)
        except Exception:  # names that exist for type checkers alone
            hints = {}
        found = list(signature.parameters.values())[1 if inspect.isclass(target) else 0 :]
        for parameter in found:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and (
                parameter.name not in parameters
            ):
                # what a parent requires, its child may well give by itself
                parameters[parameter.name] = parameter if number == 0 else parameter.replace(default=None)
                annotations[parameter.name] = hints.get(parameter.name, Any)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
            return parameters, annotations, False  # **kwargs end here
    return parameters, annotations, bool(makers) and makers[0] is not object.__init__


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value can be what an annotation asks for; of what it cannot judge, it says yes."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if (
        annotation is Any
        or isinstance(annotation, (str, typing.TypeVar))
        or (isinstance(value, Mapping) and "_target_" in value)
    ):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if annotation is None or annotation is type(None) or value is None:
        return value is None and annotation in (None, type(None))
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is str:
        return isinstance(value, str)
    kind = origin or annotation
    if not inspect.isclass(kind):
        return True
    if kind is Tensor:
        return False
    if isinstance(value, (list, tuple)):
        if not issubclass(list, kind) and not issubclass(tuple, kind):
            return kind is set
        fixed = kind is tuple and inner and inner[-1] is not Ellipsis
        if fixed and len(inner) != len(value):
            return False
        each = inner if fixed else [inner[0] if inner else Any] * len(value)
        return all(fits(part, one) for part, one in zip(value, each, strict=True))
    if isinstance(value, Mapping):
        return issubclass(dict, kind) or not issubclass(kind, (list, tuple))
    if isinstance(value, str):
        return not issubclass(kind, (int, float, list, tuple, dict)) and kind.__module__ != "collections.abc"
    return False


def named(annotation: Any) -> str:
    """An annotation as one would say it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        choices = tuple(choice for one in inner if get_origin(one) is Literal for choice in get_args(one))
        plain = [one for one in inner if one is not Tensor and get_origin(one) is not Literal]
        return " or ".join(dict.fromkeys(named(one) for one in ([Literal[choices]] if choices else []) + plain))
    if origin is Literal:
        return "one of " + ", ".join(dict.fromkeys(map(str, inner)))
    if annotation in (None, type(None)):
        return "null"
    words: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    kind = origin or annotation
    if kind in words:
        return words[kind]
    if inspect.isclass(kind) and kind is not str and (issubclass(list, kind) or issubclass(tuple, kind)):
        of = [one for one in inner if one is not Ellipsis]
        count = f" of {len(inner)}" if kind is tuple and inner and inner[-1] is not Ellipsis else ""
        return f"a list{count}" + (f" ({named(of[0])} each)" if of else "")
    if inspect.isclass(kind) and issubclass(dict, kind):
        return "a mapping"
    return getattr(kind, "__name__", str(kind))


def _of_target(name: str, part: Config) -> Iterator[Fault]:
    target = part["_target_"]
    try:
        made = locate(target)
    except NotFound as error:
        yield f"{name}._target_", target, str(error)
        return
    parameters, annotations, any_other = taken(made)
    group = name if name in GIVEN else name.partition(".")[0]
    given = GIVEN.get(group, ()) if name == group or group == "metrics" else ()
    for key, value in part.items():
        if key in ("_target_", "_partial_", "_args_", "_convert_", "_recursive_") or (
            name == "model" and key == "net"
        ):
            continue
        if key not in parameters:
            if not any_other:
                built = {
                    one for one, each in parameters.items() if part.get("_partial_") and each.default is each.empty
                }
                known = [one for one in parameters if one in FACTS or one not in {*given, *built}]
                takes = f"It takes {', '.join(known)}" if known else "It takes none"
                own = "; data=custom gives a data set of your own no key but those you add" if name == "data" else ""
                yield f"{name}.{key}", value, f"is no argument of {target}.{did_you_mean(key, known)} {takes}{own}"
        elif value is None and key in given:
            continue
        elif not fits(value, annotations[key]):
            yield f"{name}.{key}", value, f"must be {named(annotations[key])}, as {target} says"
    if not part.get("_partial_"):
        required = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
        if missing := [key for key in required if key not in part and key not in given]:
            yield name, "", f"lacks {', '.join(missing)}, which {target} needs: +{name}.{missing[0]}=..."


def _fit_together(config: Config) -> Iterator[Fault]:
    data, net = (_class(config, name) for name in ("data", "model.net"))
    if data is None:
        return
    shape = getattr(data, "image_shape", None)
    if net is not None and isinstance(shape, tuple):
        parts = config["model"]["net"]
        choice = str(config["data"]["_target_"]).rpartition(".")[2]
        channels, *sides = shape
        known = {"in_channels": channels, "in_features": math.prod(shape), "image_size": sides}
        if isinstance(names := getattr(data, "class_names", None), tuple):
            known["num_classes"] = len(names)
        for key, truth in known.items():
            value = parts.get(key)
            if isinstance(value, int) and key == "image_size":
                value = [value] * len(sides)
            fine = value is None or value == truth or (key == "num_classes" and type(value) is int and value > truth)
            if not fine:
                yield (
                    f"model.net.{key}",
                    parts[key],
                    f"does not fit {choice}, which has {shown(truth)}: null takes it from the data",
                )
    yield from _counts(config, data)
    scheduler, trainer = _class(config, "scheduler"), section(config, "trainer")
    endless = trainer.get("max_epochs") == -1 and trainer.get("max_steps") in (-1, None)
    if scheduler is not None and endless and "total_steps" in taken(scheduler)[0]:
        yield (
            "trainer.max_epochs",
            -1,
            (
                f"has no end, and {config['scheduler']['_target_']} plans for one: set trainer.max_epochs or "
                "trainer.max_steps, or use scheduler=constant"
            ),
        )


def _counts(config: Config, data: Any) -> Iterator[Fault]:
    """Numbers of images, where the class says how many there are in its train split."""
    images, parts = getattr(data, "train_images", None), config["data"]
    val_size, batch, folds, limit = (parts.get(key) for key in ("val_size", "batch_size", "num_folds", "limit"))
    if not isinstance(images, int):
        return
    val = 0 if not isinstance(val_size, (int, float)) else round(val_size * images) if val_size < 1 else int(val_size)
    if isinstance(folds, int) and folds > images:
        yield "data.num_folds", folds, f"exceeds the {images:,} images there are"
    elif folds is None and val >= images:
        yield "data.val_size", val_size, f"leaves none of the {images:,} images to train on"
    left = images - (images // folds if isinstance(folds, int) and folds > 1 else val)
    if isinstance(limit, (int, float)) and limit > max(left, 1):
        yield "data.limit", limit, f"exceeds the {left:,} images there are to train on"
    if isinstance(batch, int) and left > 0 and batch > left:
        yield "data.batch_size", batch, f"exceeds the {left:,} images there are to train on"
    every, trainer = section(config, "trainer").get("val_check_interval"), section(config, "trainer")
    if isinstance(batch, int) and batch > 0 and isinstance(every, int) and limit is None and left > 0:
        batches = math.ceil(left / batch)
        if every > batches and trainer.get("check_val_every_n_epoch") is not None:
            yield (
                "trainer.val_check_interval",
                every,
                (f"exceeds the {batches} batches of an epoch: use trainer.check_val_every_n_epoch for longer ones"),
            )
    if isinstance(batch, int) and batch > 0 and limit is None and left % batch == 1 and _flat_batch_norm(config):
        yield (
            "data.batch_size",
            batch,
            (
                f"leaves one image for the last batch of {left:,}, which batch normalisation cannot take: choose "
                "another, or model.net.norm=layer"
            ),
        )


def _flat_batch_norm(config: Config) -> bool:
    net = section(config, "model.net")
    return net.get("norm") == "batch" and net.get("_target_") == "experiments.nets.MLP"


def _class(config: Config, name: str) -> Any:
    """The class that a part of a config names, or None."""
    part: Any = config
    for key in name.split("."):
        part = part.get(key) if isinstance(part, Mapping) else None
    try:
        return locate(part["_target_"]) if isinstance(part, Mapping) and "_target_" in part else None
    except NotFound:
        return None


def mistakes(config: Config, typed: Sequence[str] = ()) -> list[str]:
    """Everything that is wrong with a config that the first pass has passed.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns.
        typed: the command line's overrides, to say which mistakes come from there.
    """
    found = [fault for name, part in targets(config) for fault in _of_target(name, part)]
    wrong = {name for name, *_ in found}
    found += [fault for fault in _fit_together(config) if fault[0] not in wrong]
    return [said(*fault, typed) for fault in {fault[0]: fault for fault in found}.values()]
