"""Weights in a file and in a network: what a checkpoint says of its network, differences, loading."""

import logging
import math
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from experiments.errors import UserError
from experiments.runs.checkpoint_files import read_checkpoint

log = logging.getLogger(__name__)
PREFIXES = ("net.", "module.", "model.", "_orig_mod.")  # of a Classifier, DDP, other LightningModules, torch.compile
MAX_PIXELS = 2**28  # of one image, channels included
OUTPUTS = ("classes", "labels", "values", "mask")  # how a network's outputs are read, as experiments.Task says


def network_card(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """What a checkpoint says of its network: ``net``, its images', ``class_names`` and ``outputs``.

    Checkpoints from before there were other tasks do not say ``outputs``: theirs are ``classes``.

    Raises:
        UserError: if it says nothing, or what cannot be.
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
        and found.get("outputs", "classes") in OUTPUTS
    )
    if not fine:
        raise UserError(
            f"{path} says of its network what cannot be: image_shape, mean, std, class_names or outputs are damaged"
        )
    return {"outputs": "classes", **found}


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
    if not _are_weights(weights):
        raise UserError(f"{source} holds no state_dict: its values are not all tensors")
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise_state_dict_diff(module, state_dict_diff(module, weights) or str(error).splitlines(), source)


def load_initial_weights(net: nn.Module, path: str | Path, strict: bool = True) -> None:
    """Start a network from the weights in a file: a plain state_dict, a checkpoint of a run, or safetensors.

    Names may begin with what wrappers put before them, such as ``module.`` and ``_orig_mod.``. Unless ``strict``,
    what does not fit by name and shape is left as the network has it, and named.

    Raises:
        UserError: if the file is missing or damaged, or its names and shapes are not the network's; where it is not
            strict, if nothing fits.
    """
    weights, _ = read_weights(path, "init_from", set(net.state_dict()))
    differing = state_dict_diff(net, weights) if _are_weights(weights) else []
    if differing and not strict:
        own = net.state_dict()
        fitting = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
        if not fitting:
            raise_state_dict_diff(net, ["nothing in it fits", *differing], f"init_from={path}")
        log.warning(
            "init_from=%s: %d of %d tensors of the network are taken; left out:\n  %s",
            path, len(fitting), len(own), "\n  ".join(differing),
        )  # fmt: skip
        weights = {**own, **fitting}
    elif differing and any(name in weights for name in net.state_dict()):
        differing.append("init_from_strict=false takes what fits, and leaves the rest as it is")
        raise_state_dict_diff(net, differing, f"init_from={path}")
    load_weights(net, weights, f"init_from={path}")


def read_weights(path: str | Path, key: str, names: set[str] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file of weights holds, by a network's ``names`` if given, and a checkpoint's card, if it has one.

    Raises:
        UserError: if the file is missing or damaged; ``key`` is where it was named.
    """
    content = _read_safetensors(path, key) if Path(path).suffix == ".safetensors" else read_checkpoint(path)
    card = network_card(content, path) if "card" in content.get("hyper_parameters", {}) else {}
    weights = content["state_dict"] if isinstance(content.get("state_dict"), dict) else content
    return weights if names is None else _without_prefixes(weights, names), card


def _read_safetensors(path: str | Path, key: str) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"{key}={path}: it needs a package more. Type pip install safetensors") from None
    try:
        return dict(load_file(path))
    except Exception as error:  # the library has no class for all that can be wrong with a file
        raise UserError(f"{key}={path} cannot be read: {str(error).splitlines()[0]}") from error


def _without_prefixes(weights: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The weights by a network's names, without what its wrappers put before them."""
    while weights and not names & weights.keys():
        prefix = next((one for one in PREFIXES if any(str(name).startswith(one) for name in weights)), None)
        if prefix is None:
            break
        weights = {
            name.removeprefix(prefix): value for name, value in weights.items() if str(name).startswith(prefix)
        }
    return weights


def _are_weights(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    )


def net_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The network's own ``state_dict``: the names it has outside the LightningModule."""
    return {
        name.removeprefix("net."): value
        for name, value in checkpoint.get("state_dict", {}).items()
        if isinstance(name, str) and name.startswith("net.")
    }
