"""The base of all augmentations, and what they draw with."""

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


class Augmentation(nn.Module):
    """Maps float images in [0, 1] (B, C, H, W) and labels to others of the same shapes.

    Labels are int64 (B,), or (B, num_classes) probabilities where one of a batch's augmentations mixes images.
    """

    mixes = False

    @abstractmethod
    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Return the changed batch; what is random comes from ``rng``."""


def uniform(rng: np.random.Generator, like: Tensor, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers on the device of ``like``."""
    drawn = rng.random(shape or len(like), dtype=np.float32) * np.float32(high - low) + np.float32(low)
    return torch.from_numpy(drawn).to(like.device)
