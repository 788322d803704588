"""Augmentations by whole pixels: crops and flips."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.data.augmentation.base import Augmentation, Batch, on_device, uniform
from experiments.errors import ranges


class Crop(Augmentation):
    """A random part of the original size, out of the image with a margin of ``margin`` black pixels."""

    @ranges(margin="whole, >= 0, <= 1000")
    def __init__(self, margin: int = 4) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Each image shifted by whole pixels of its own."""
        count, _, height, width = images.shape
        corners = rng.integers(0, 2 * self.margin + 1, (2, count, 1))
        rows = on_device(corners[0] + np.arange(height), images)  # (B, H)
        columns = on_device(corners[1] + np.arange(width), images)  # (B, W)
        padded = F.pad(images, (self.margin,) * 4).permute(0, 2, 3, 1)
        image = torch.arange(count, device=images.device)[:, None, None]
        return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous(), labels


class Flip(Augmentation):
    """Left and right, and top and bottom, exchanged with these probabilities."""

    @ranges(horizontal=">= 0, <= 1", vertical=">= 0, <= 1")
    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        super().__init__()
        self.probabilities = {-1: horizontal, -2: vertical}

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Each image mirrored or not."""
        for side, probability in self.probabilities.items():
            if probability:
                chosen = uniform(rng, images, 0, 1) < probability
                images = torch.where(chosen.view(-1, 1, 1, 1), images.flip(side), images)
        return images, labels
