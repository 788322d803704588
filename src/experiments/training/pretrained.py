"""Weights that a network starts with: the input they expect, loading them, keeping them for a restart."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.config.checks.check import Validated
from experiments.errors import UserError
from experiments.nets.timm_networks import pretrained_input
from experiments.runs.allowed_classes import PRETRAINED, without_pretrained_weights
from experiments.runs.checkpoint_files import AtomicCheckpointIO
from experiments.runs.state_dicts import read_weights

log = logging.getLogger(__name__)
INITIAL_WEIGHTS = "initial_weights.pt"


class Filled(Validated):
    """A validated config whose null mean, std and image size are filled in: the weights need not be read again."""


def _pretrained_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    net = config["model"].get("net")
    return net if isinstance(net, Mapping) and net.get("_target_") == PRETRAINED else {}


def weights_file(net: Mapping[str, Any]) -> Path | None:
    """The file that the config of a network takes weights from, if it does."""
    weights = net.get("weights") if net.get("_target_") == PRETRAINED else None
    return Path(weights).expanduser() if isinstance(weights, str) and weights not in ("default", "none") else None


def fill_input_from_weights(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with the mean, std and image size that its network's weights expect, where these are null.

    Weights in a plain file say nothing: their architecture's mean and std are taken.
    """
    if isinstance(config, Filled):
        return config
    net, data = _pretrained_config(config), config["data"]
    missing = [key for key in ("mean", "std", "image_size") if key in data and data[key] is None]
    if not missing or not net or net.get("weights", "default") in (None, "none"):
        return config
    found = pretrained_input(str(net.get("name")))
    if path := weights_file(net):
        _, card = read_weights(path, "model.net.weights")
        found.pop("image_size", None)
        found |= {key: list(card[key]) for key in ("mean", "std") if card.get(key)}
        if len(shape := card.get("image_shape") or ()) == 3:
            found["image_size"] = list(shape[1:])
    if settled := {key: found[key] for key in missing if key in found}:
        said = ", ".join(f"data.{key}={value}" for key, value in settled.items())
        log.info("as the weights of %s were trained: %s", net["name"], said)
    return Filled({**config, "data": {**data, **settled}})


def read_initial_weights(path: Path, names: set[str]) -> dict[str, torch.Tensor]:
    """The weights in a file, by a network's names."""
    weights, _ = read_weights(path, "model.net.weights", names)
    if not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"model.net.weights={path} holds no state_dict: its values are not all tensors")
    return weights


def require_image_shape(net: nn.Module, name: str, image_shape: list[int]) -> None:
    """Raise UserError if a network does not take images of a shape; many of timm's fail only in the first step."""
    before = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, *image_shape))
    except Exception as error:  # whatever it stumbles over
        sizes = " × ".join(map(str, image_shape))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"model.net.name={name} does not take images of {sizes}: {reason}. Set data.image_size where the data "
            "set has it, or take another network"
        ) from error
    finally:
        net.train(before)
    patch: Any = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and len(patch) == 2:
        left = [side % part for side, part in zip(image_shape[1:], patch, strict=True)]
        if any(left):
            log.warning("patches of %d × %d pixels leave %d rows and %d columns of images out", *patch, *left)


def save_initial_weights(config: Mapping[str, Any], net: nn.Module) -> None:
    """Save the weights that a run begins with, if they are from elsewhere: it may be killed before a checkpoint."""
    if config["init_from"] or _pretrained_config(config).get("weights") not in (None, "none"):
        AtomicCheckpointIO().save_checkpoint(
            net.state_dict(), Path(config["run_dir"]) / "checkpoints" / INITIAL_WEIGHTS
        )


def fill_input_from_stored(config: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what the weights once said of the data, where nothing was typed."""
    data, before = config["data"], stored["data"]
    settled = {key: before.get(key) for key in ("mean", "std", "image_size") if key in data and data[key] is None}
    return {**config, "data": {**data, **settled}}


def replace_weight_sources(stored: dict[str, Any], run_dir: Path, has_checkpoint: bool) -> dict[str, Any]:
    """Replace the sources of weights: by the initial weights that were saved, or by none if there is a checkpoint."""
    start = run_dir / "checkpoints" / INITIAL_WEIGHTS
    if not has_checkpoint and not start.is_file():
        return stored
    stored = without_pretrained_weights(stored)
    return {**stored, "init_from": None if has_checkpoint else str(start), "init_from_strict": True}


def delete_initial_weights(run_dir: Path) -> None:
    """Remove what ``save_initial_weights`` saved."""
    (run_dir / "checkpoints" / INITIAL_WEIGHTS).unlink(missing_ok=True)
