"""The base of all augmentations, and what they draw with."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.data.memory import to_device
from experiments.errors import UserError

Batch = tuple[Tensor, Tensor]


class Augmentation(nn.Module):
    """Maps float images in [0, 1] (B, C, H, W) and labels to others of the same shapes.

    Labels are int64 (B,), or (B, num_classes) probabilities where one of a batch's augmentations mixes images.
    Masks go with those alone that leave every pixel in its place.
    """

    mixes = False
    moves_pixels = True

    @abstractmethod
    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Return the changed batch; what is random comes from ``rng``."""


def require_fit(augmentations: Sequence[Augmentation], targets: Tensor) -> None:
    """Raise UserError for an augmentation that targets which are no classes do not go with."""
    for one in augmentations:
        if one.mixes or (targets.ndim > 2 and one.moves_pixels):
            fault = "blends classes, and the targets are none" if one.mixes else "moves images, and not their masks"
            raise UserError(f"augment: {type(one).__name__} {fault}; leave it out")


def uniform(rng: np.random.Generator, like: Tensor, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers on the device of ``like``."""
    drawn = rng.random(shape or len(like), dtype=np.float32) * np.float32(high - low) + np.float32(low)
    return on_device(drawn, like)


def on_device(numbers: np.ndarray[Any, Any], like: Tensor) -> Tensor:
    """Numbers as a tensor on the device of ``like``."""
    return to_device(torch.from_numpy(numbers), like.device)


@lru_cache
def constant(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers that are the same for every batch, (n,)."""
    return torch.tensor(numbers, device=device)


def interval(name: str, ends: Sequence[float]) -> tuple[float, float]:
    """The two ends of a range that amounts are drawn from.

    Raises:
        ValueError: if they are not two, the smaller one first.
    """
    if len(ends) != 2 or ends[0] > ends[1]:
        raise ValueError(f"augment: {name}={list(ends)} must be two positive numbers, the smaller one first")
    return ends[0], ends[1]
