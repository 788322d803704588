"""Rebuild a network from a checkpoint alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from experiments.errors import UserError
from experiments.nets import Ensemble
from experiments.runs.allowed_classes import check_allowed, without_pretrained_weights
from experiments.runs.checkpoint_files import read_checkpoint
from experiments.runs.state_dicts import load_weights, net_weights, network_card
from experiments.training.build import make


def load(path: str | Path, trust: Sequence[str] = ()) -> nn.Module:
    """Rebuild the network from a checkpoint alone: plain, on the CPU, in evaluation mode.

    It takes normalised float images (batch, C, H, W) and gives logits (batch, num_classes), or what its task has for
    outputs. Its attribute ``card`` says ``image_shape``, ``mean``, ``std``, ``class_names`` and ``outputs`` (how they
    are read, as ``experiments.Task`` has it), in plain values.

    Args:
        path: a ``.ckpt`` file of a run.
        trust: packages of your own whose networks the checkpoint may name.

    Raises:
        UserError: if the file is missing or damaged, or names anything but a network of a trusted package.
    """
    checkpoint = read_checkpoint(path)
    card = network_card(checkpoint, path)
    check_allowed(card["net"], str(path), trust)
    card = {**card, "net": without_pretrained_weights(card["net"])}
    net: nn.Module = make(card["net"], f"{path} describes a network that cannot be built")
    load_weights(net, net_weights(checkpoint), str(path))
    net.card = card  # type: ignore[assignment]  # torch types a module's attributes as tensors and modules
    return net.eval()


def load_ensemble(paths: Sequence[str | Path], trust: Sequence[str] = ()) -> nn.Module:
    """Rebuild the networks of several checkpoints as one that averages their predictions; of one, that network.

    Raises:
        UserError: for what ``load`` raises it, and for networks that take other images or know other classes.
    """
    nets = [load(path, trust) for path in paths]
    first, *others = ({key: value for key, value in card_of(net).items() if key != "net"} for net in nets)
    for other, path in zip(others, paths[1:], strict=True):
        if differing := [f"{key}={other[key]} instead of {first[key]}" for key in first if other[key] != first[key]]:
            raise UserError(f"{path} cannot be averaged with {paths[0]}: it has {', '.join(differing)}")
    if len(nets) == 1:
        return nets[0]
    ensemble = Ensemble(nets, first["outputs"])
    ensemble.card = first  # type: ignore[assignment]  # torch types a module's attributes as tensors and modules
    return ensemble.eval()


def card_of(net: nn.Module) -> dict[str, Any]:
    """What a network of ``load`` takes and gives: ``image_shape``, ``mean``, ``std``, ``class_names``, ``outputs``.

    Raises:
        UserError: if it does not say.
    """
    card = getattr(net, "card", None)
    if not isinstance(card, dict) or not all(card.get(n) for n in ("image_shape", "mean", "std", "class_names")):
        raise UserError(
            f"this {type(net).__name__} does not say what images it takes and what classes it knows: "
            "experiments.load gives one that does, if its run's data set said so"
        )
    return {"outputs": "classes", **card}
