"""Groups of parameters: which ones a pattern matches, and how an optimizer treats them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from experiments.errors import UserError, did_you_mean, ranges

log = logging.getLogger(__name__)
KEYWORDS = ("head", "backbone", "biases_and_norms")


class ParamGroup:
    """How an optimizer treats the parameters that match patterns, as ``matching_parameter_names`` reads them.

    A parameter in several groups gets the product of their ``lr_factor`` and the last one's ``weight_decay``.
    ``layer_decay`` lowers the learning rate by this factor for every layer that lies further from the head (Howard &
    Ruder 2018, arXiv 1801.06146), for networks of timm, which know their layers.
    """

    @ranges(lr_factor=">= 0", weight_decay=">= 0", layer_decay="> 0, <= 1")
    def __init__(
        self,
        parameters: Sequence[str] = ("*",),
        lr_factor: float = 1.0,
        weight_decay: float | None = None,
        layer_decay: float | None = None,
    ) -> None:
        self.parameters = list(parameters)
        self.lr_factor = lr_factor
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay


def named_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's parameters by name; those of its network without ``net.`` before it."""
    return {name.removeprefix("net."): parameter for name, parameter in module.named_parameters()}


def matching_parameter_names(
    module: nn.Module, patterns: Sequence[str], num_classes: int | None, key: str
) -> list[str]:
    """The names of the parameters that match a pattern, in the network's order.

    A pattern is the name of a layer or parameter, one with ``*``, or a word: ``head`` is the layer that gives the
    logits, ``backbone`` all but it, ``biases_and_norms`` biases, normalisation layers and what else the network
    itself says should not decay.

    Args:
        module: a network, or a LightningModule around one as ``net``.
        patterns: see above.
        num_classes: how many logits the head gives; None if nobody knows.
        key: where the patterns stand, for the message.

    Raises:
        UserError: if a pattern matches nothing; the message has the nearest names.
    """
    parameters = named_parameters(module)
    keywords: dict[str, Callable[[], set[str]]] = {
        "head": lambda: _head_parameter_names(module, num_classes),
        "backbone": lambda: {*parameters} - _head_parameter_names(module, num_classes),
        "biases_and_norms": lambda: _no_decay_names(module),
    }
    found: set[str] = set()
    for pattern in patterns:
        if pattern in keywords:
            matches = keywords[pattern]()
        else:
            matches = {name for name in parameters if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")}
        if not matches:
            parts = [name.split(".") for name in parameters]
            known = dict.fromkeys(".".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1))
            near = did_you_mean(pattern, [*KEYWORDS, *known])
            layers = ", ".join([*KEYWORDS, *dict.fromkeys(part[0] for part in parts)])
            raise UserError(f"{key}: it names {pattern}, which matches no parameter.{near} There are {layers}")
        found |= matches
    return [name for name in parameters if name in found]


def _head_parameter_names(module: nn.Module, num_classes: int | None) -> set[str]:
    net: Any = getattr(module, "net", module)
    if hasattr(net, "get_classifier"):  # timm's; some have two
        heads = net.get_classifier()
        heads = list(heads) if isinstance(heads, (tuple, list)) else [heads]
    else:
        sizes = (
            (part, {getattr(part, "out_features", None), getattr(part, "out_channels", None)})
            for part in net.modules()
        )
        heads = [part for part, output_sizes in sizes if num_classes in output_sizes and num_classes is not None][-1:]
    own = {id(parameter) for head in heads if isinstance(head, nn.Module) for parameter in head.parameters()}
    return {name for name, parameter in named_parameters(module).items() if id(parameter) in own}


def _no_decay_names(module: nn.Module) -> set[str]:
    net: Any = getattr(module, "net", module)
    declared = set(net.no_weight_decay()) if hasattr(net, "no_weight_decay") else set()  # timm's position embeddings
    return {name for name, parameter in named_parameters(module).items() if parameter.ndim <= 1 or name in declared}


def parameter_groups(
    module: nn.Module, rules: Mapping[str, ParamGroup], num_classes: int | None
) -> list[dict[str, Any]]:
    """All parameters in groups as torch's optimizers take them, with ``name`` and ``lr_factor``.

    Raises:
        UserError: if a pattern matches nothing, or layer_decay is set and the network does not define its layers.
    """
    parameters = named_parameters(module)
    settings: dict[str, dict[str, Any]] = {name: {"name": [], "lr_factor": 1.0} for name in parameters}
    for label, rule in rules.items():
        distances = _distances_from_head(module, f"param_groups.{label}") if rule.layer_decay is not None else {}
        for name in matching_parameter_names(
            module, rule.parameters, num_classes, f"param_groups.{label}.parameters"
        ):
            setting, depth = settings[name], distances.get(name, 0)
            setting["name"].append(f"{label}-{depth}" if distances else label)
            setting["lr_factor"] *= rule.lr_factor * (rule.layer_decay or 1.0) ** depth
            if rule.weight_decay is not None:
                setting["weight_decay"] = rule.weight_decay
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in parameters.items():
        label = "+".join(settings[name]["name"]) or "others"
        groups.setdefault(label, {**settings[name], "name": label, "params": []})["params"].append(parameter)
    for label, group in groups.items():
        decay = f", weight decay {group['weight_decay']:g}" if "weight_decay" in group else ""
        count = sum(parameter.numel() for parameter in group["params"])
        log.info("%s: %s parameters, learning rate × %.3g%s", label, f"{count:,}", group["lr_factor"], decay)
    return list(groups.values())


def _distances_from_head(module: nn.Module, key: str) -> dict[str, int]:
    """How many layers each parameter lies before the head."""
    net: Any = getattr(module, "net", module)
    if not hasattr(net, "group_matcher"):
        raise UserError(
            f"{key}.layer_decay: {type(net).__name__} does not say what its layers are; model=pretrained does"
        )
    from timm.models import group_parameters

    numbers = group_parameters(net, net.group_matcher(coarse=False), reverse=True)
    return {name: max(numbers.values()) - number for name, number in numbers.items()}
