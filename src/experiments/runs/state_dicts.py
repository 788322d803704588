"""Weights in a file and in a network: what a checkpoint says of its network, differences, loading."""

import math
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from experiments.errors import UserError
from experiments.runs.checkpoint_files import read_checkpoint

MAX_PIXELS = 2**28  # of one image, channels included


def network_card(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """What a checkpoint says of its network: ``net``, ``image_shape``, ``mean``, ``std``, ``class_names``.

    Raises:
        UserError: if it says nothing.
    """
    found = checkpoint.get("hyper_parameters", {}).get("card")
    if not isinstance(found, dict) or "net" not in found:
        raise UserError(
            f"{path} does not say how to build its network: it was not written by a Classifier of a run. Build the "
            "network yourself and load the state_dict in the file, or use load_from_checkpoint of the class it is of"
        )
    shape, mean, std, names = (found.get(key, []) for key in ("image_shape", "mean", "std", "class_names"))
    fine = (
        isinstance(found["net"], dict)
        and all(isinstance(part, (list, tuple)) for part in (shape, mean, std, names))
        and all(type(side) is int and 0 < side <= MAX_PIXELS for side in shape)
        and math.prod(shape) <= MAX_PIXELS
        and all(isinstance(part, (int, float)) and math.isfinite(part) for part in (*mean, *std))
        and all(isinstance(name, str) for name in names)
    )
    if not fine:
        raise UserError(
            f"{path} says of its network what cannot be: image_shape, mean, std or class_names are damaged"
        )
    return found


def state_dict_diff(module: nn.Module, weights: dict[str, torch.Tensor]) -> list[str]:
    """Every name whose shape differs between a module and weights, with both sides."""
    mine = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    return [
        f"{name}: {mine.get(name, 'nothing')} in the network, {theirs.get(name, 'nothing')} in the file"
        for name in dict.fromkeys([*mine, *theirs])
        if mine.get(name) != theirs.get(name)
    ]


def raise_state_dict_diff(module: nn.Module, differing: list[str], source: str) -> NoReturn:
    """Raise UserError with the names that differ."""
    more = f"\n  and {len(differing) - 20} more" if len(differing) > 20 else ""
    raise UserError(
        f"the weights in {source} do not fit {type(module).__name__}:\n  " + "\n  ".join(differing[:20]) + more
    )


def load_weights(module: nn.Module, weights: Any, source: str) -> None:
    """Load weights, all of them and no others.

    Raises:
        UserError: if names or shapes differ; the message gives each with both sides.
    """
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise UserError(f"{source} holds no state_dict: its values are not all tensors")
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise_state_dict_diff(module, state_dict_diff(module, weights) or str(error).splitlines(), source)


def load_initial_weights(net: nn.Module, path: str | Path) -> None:
    """Start a network from the weights in a file: a plain state_dict (``model.pth``), or a checkpoint of a run.

    Raises:
        UserError: if the file is missing or damaged, or its names and shapes are not the network's.
    """
    content = read_checkpoint(path)
    if isinstance(content.get("state_dict"), dict):  # a checkpoint; what is a LightningModule by itself has no net.
        content = net_weights(content) or content["state_dict"]
    load_weights(net, content, f"init_from={path}")


def net_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The network's own ``state_dict``: the names it has outside the LightningModule."""
    return {
        name.removeprefix("net."): value
        for name, value in checkpoint.get("state_dict", {}).items()
        if isinstance(name, str) and name.startswith("net.")
    }
