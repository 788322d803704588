"""Find classes that do not exist, do not take what they are given, or do not go together; builds nothing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.config.checks.check import describe_mistake
from experiments.config.checks.sections import Config, Fault, section, shown, targets, value_at
from experiments.config.checks.signatures import NotFound, accepted_arguments, describe_annotation, fits, locate
from experiments.config.suggestions import suggestion_suffix
from experiments.errors import UserError

FACTS = ("num_classes", "in_channels", "image_size", "in_features")


#: What ``build`` adds to what stands in a config: to a key, or to every key below it.
GIVEN = {
    "model": ("net", "loss", "optimizer", "scheduler", "metrics", "param_groups", "num_classes", "card"),
    "model.net": FACTS,
    "metrics": FACTS,
    "loss": ("class_counts",),
    "scheduler": ("max_lr", "total_steps"),
    "trainer": ("callbacks", "logger", "plugins"),
}


def _of_target(name: str, part: Config) -> Iterator[Fault]:
    target = part["_target_"]
    try:
        made = locate(target)
    except NotFound as error:
        yield f"{name}._target_", target, str(error)
        return
    parameters, annotations, any_other = accepted_arguments(made)
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
                near = suggestion_suffix(f"{name}.{key}", value, {f"{name}.{one}": True for one in known})
                yield f"{name}.{key}", value, f"is no argument of {target}.{near or f' {takes}{own}'}"
        elif value is None and key in given:
            continue
        elif not fits(value, annotations[key]):
            yield f"{name}.{key}", value, f"must be {describe_annotation(annotations[key])}, as {target} says"
    if not part.get("_partial_"):
        required = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
        if missing := [key for key in required if key not in part and key not in given]:
            yield name, "", f"lacks {', '.join(missing)}, which {target} needs: +{name}.{missing[0]}=..."


def class_mistakes(config: Config, typed: Sequence[str] = ()) -> list[str]:
    """Everything that is wrong with a config that the first pass has passed.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns.
        typed: the command line's overrides, to say which mistakes come from there.
    """
    found = [fault for name, part in targets(config) for fault in _of_target(name, part)]
    wrong = {name for name, *_ in found}
    found += [fault for fault in class_combinations(config) if fault[0] not in wrong]
    if not any(name.startswith(("optimizer", "scheduler")) for name, *_ in found):
        found += _refusals(config)
    if not any(name.startswith("model.net") for name, *_ in found):
        found += _refused_network(config)
    return [describe_mistake(*fault, typed) for fault in {fault[0]: fault for fault in found}.values()]


def _refused_network(config: Config) -> Iterator[Fault]:
    """What a network of ours refuses, or our optimizer of its weights, tried without memory for them.

    A user's own may do anything when it is made.
    """
    import torch

    part, data = section(config, "model.net"), _class(config, "data")
    target = str(part.get("_target_"))
    if not target.startswith("experiments.nets.") or isinstance(part.get("nets"), list):
        return
    channels, *sides = getattr(data, "image_shape", None) or (1, 28, 28)
    facts = {"in_channels": channels, "image_size": sides, "in_features": channels * math.prod(sides)}
    made = locate(target)
    given = {
        key: value
        for key, value in part.items()
        if not key.startswith("_") and value is not None and key != "weights"  # which lie in a file
    }
    try:
        with torch.device("meta"):
            net = made(
                **{key: value for key, value in facts.items() if key in accepted_arguments(made).parameters} | given
            )
    except ValueError as error:
        key, _, text = str(error).partition("=")
        value = repr(given.get(key))
        if key in given and text.startswith(f"{value} "):
            yield f"model.net.{key}", given[key], text.removeprefix(f"{value} ")
        else:
            yield "model.net", "", f"is refused by {target}: {error}"
        return
    except Exception:  # what the data's facts are missing for
        return
    yield from _refused_patterns(config, net, given.get("num_classes", 10))
    optimizer = section(config, "optimizer")
    if str(optimizer.get("_target_")).startswith("experiments."):
        try:
            locate(optimizer["_target_"])(net.parameters())
        except ValueError as error:
            yield "optimizer", "", f"does not go with {target}: {error}"
        except Exception:  # weights without memory
            return


def _refused_patterns(config: Config, net: Any, num_classes: int) -> Iterator[Fault]:
    """Patterns of groups and of what is frozen that mean none of a network's parameters."""
    matching_parameter_names = locate("experiments.learning.param_groups.matching_parameter_names")
    parts = {f"param_groups.{name}": part for name, part in section(config, "param_groups").items()}
    parts |= {
        f"callbacks.{name}": part
        for name, part in section(config, "callbacks").items()
        if str(value_at(part, "_target_")) == "experiments.callbacks.Freeze"
    }
    for name, part in parts.items():
        patterns = value_at(part, "parameters")
        try:
            matching_parameter_names(net, patterns or [], num_classes, name)
        except UserError as error:
            yield f"{name}.parameters", patterns, str(error).partition(": it ")[2]


def _refusals(config: Config) -> Iterator[Fault]:
    """What torch's optimizers and schedules refuse, tried on one parameter."""
    import torch

    first: Any = [torch.nn.Parameter(torch.zeros(1, 1))]
    for group in ("optimizer", "scheduler"):
        part = section(config, group)
        if not str(part.get("_target_")).startswith("torch.optim."):
            return
        made = locate(part["_target_"])
        given = {key: value for key, value in part.items() if not key.startswith("_") and value is not None}
        if "total_steps" in accepted_arguments(made).parameters:
            given = {"max_lr": section(config, "optimizer").get("lr", 1.0), "total_steps": 100, **given}
        try:
            first = made(first, **given)
        except ValueError as error:
            yield group, "", f"is refused by {part['_target_']}: {error}"
            return
        except Exception:  # what one parameter is not enough for
            return


def class_combinations(config: Config) -> Iterator[Fault]:
    """Find what does not fit together: network and data, schedule and length, numbers of images."""
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
    yield from _direction(config)
    scheduler, trainer = _class(config, "scheduler"), section(config, "trainer")
    endless = trainer.get("max_epochs") == -1 and trainer.get("max_steps") in (-1, None)
    if scheduler is not None and endless and "total_steps" in accepted_arguments(scheduler).parameters:
        yield (
            "trainer.max_epochs",
            -1,
            (
                f"has no end, and {config['scheduler']['_target_']} plans for one: set trainer.max_epochs or "
                "trainer.max_steps, or use scheduler=constant"
            ),
        )


def _direction(config: Config) -> Iterator[Fault]:
    """Whether the worst of a metric would be kept whose class says which direction is better."""
    monitor, mode = str(config.get("monitor")), config.get("mode")
    better = getattr(_class(config, f"metrics.{monitor.removeprefix('val/')}"), "higher_is_better", None)
    if isinstance(better, bool) and mode == ("min" if better else "max"):
        yield "mode", mode, f"keeps the worst {monitor}: it must be {'max' if better else 'min'}"


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
    if isinstance(batch, int) and batch > 0 and limit is None and left > 0:
        batches, accumulated = math.ceil(left / batch), trainer.get("accumulate_grad_batches")
        if isinstance(accumulated, int) and accumulated > batches:
            fault = f"exceeds the {batches} batches of an epoch, which ends with a step: {batches} is one an epoch"
            yield "trainer.accumulate_grad_batches", accumulated, fault
    if isinstance(batch, int) and batch > 0 and isinstance(every, int) and limit is None and left > 0:
        batches = math.ceil(left / batch)
        if every > batches and trainer.get("check_val_every_n_epoch") is not None:
            yield (
                "trainer.val_check_interval",
                every,
                (f"exceeds the {batches} batches of an epoch: use trainer.check_val_every_n_epoch for longer ones"),
            )


def _class(config: Config, name: str) -> Any:
    """The class that a part of a config names, or None."""
    part: Any = config
    for key in name.split("."):
        part = part.get(key) if isinstance(part, Mapping) else None
    try:
        return locate(part["_target_"]) if isinstance(part, Mapping) and "_target_" in part else None
    except NotFound:
        return None
