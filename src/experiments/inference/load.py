"""Rebuild a network from a checkpoint alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from experiments.errors import UserError
from experiments.runs.allowed_classes import check_allowed
from experiments.runs.checkpoint_files import read_checkpoint
from experiments.runs.state_dicts import (
    load_weights,
    net_weights,
    network_card,
    raise_state_dict_diff,
    state_dict_diff,
)
from experiments.training.build import Config, make


def require_no_more_than(
    net: Config, weights: dict[str, torch.Tensor], source: str, trust: Sequence[str] = ()
) -> None:
    """Raise UserError unless a network that a file describes has the very weights that the file holds.

    It is built without memory, and no further than there are weights for: a number in a file could ask for any amount
    of either. A trusted package's network that cannot be built so is left alone.
    """
    registered = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal registered
        registered += 1
        if registered > 2 * len(weights) + 100:
            raise UserError(f"{source} describes a network with more layers than it holds weights")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            built = make(net)
        differing = state_dict_diff(built, weights)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except (RuntimeError, OverflowError, MemoryError) as error:
        if str(net["_target_"]).startswith(tuple(f"{package}." for package in trust)):
            return
        raise UserError(f"{source} describes a network that cannot be built: {str(error).splitlines()[0]}") from error
    finally:
        hook.remove()
    if differing:
        raise_state_dict_diff(built, differing, source)


def load(path: str | Path, trust: Sequence[str] = ()) -> nn.Module:
    """Rebuild the network from a checkpoint alone: plain, on the CPU, in evaluation mode.

    It takes normalised float images (batch, C, H, W) and gives logits (batch, num_classes). Its attribute ``card``
    says ``image_shape``, ``mean``, ``std`` and ``class_names``, in plain values.

    Args:
        path: a ``.ckpt`` file of a run.
        trust: packages of your own whose networks the checkpoint may name.

    Raises:
        UserError: if the file is missing or damaged, or names anything but a network of a trusted package.
    """
    checkpoint = read_checkpoint(path)
    card = network_card(checkpoint, path)
    check_allowed(card["net"], str(path), trust)
    weights = net_weights(checkpoint)
    require_no_more_than(card["net"], weights, str(path), trust)
    net: nn.Module = make(card["net"])
    load_weights(net, weights, str(path))
    net.card = card  # type: ignore[assignment]  # torch types a module's attributes as tensors and modules
    return net.eval()


def card_of(net: nn.Module) -> dict[str, Any]:
    """What a network of ``load`` takes and gives: ``image_shape``, ``mean``, ``std`` and ``class_names``.

    Raises:
        UserError: if it does not say.
    """
    card = getattr(net, "card", None)
    if not isinstance(card, dict) or not all(card.get(n) for n in ("image_shape", "mean", "std", "class_names")):
        raise UserError(
            f"this {type(net).__name__} does not say what images it takes and what classes it knows: "
            "experiments.load gives one that does, if its run's data set said so"
        )
    return card
