"""Augmentations that cut out or mix images."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.data.augmentation.base import Augmentation, Batch, on_device
from experiments.errors import ranges


def _boxes(images: Tensor, rng: np.random.Generator, heights: Any, widths: Any) -> Tensor:
    """A mask (B, 1, H, W) that is true in a box of these sides about a random centre, cut off at the borders."""
    height, width = images.shape[-2:]

    def inside(side: int, lengths: Any) -> Tensor:
        first = np.floor(rng.random((len(images), 1)) * side - lengths / 2 + 0.5)
        place = np.arange(side)
        return on_device((place >= first) & (place < first + lengths), images)

    rows, columns = inside(height, heights), inside(width, widths)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


class Cutout(Augmentation):
    """A black square of ``size`` pixels about a random point (DeVries & Taylor 2017, arXiv 1708.04552)."""

    moves_pixels = False

    @ranges(size="whole, >= 1, <= 10000")
    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Each image with a hole of its own."""
        return images.masked_fill(_boxes(images, rng, self.size, self.size), 0.0), labels


class Mixup(Augmentation):
    """Each image blended with another one of its batch, and so their labels (Zhang et al. 2018, arXiv 1710.09412).

    The other's share is drawn from Beta(``alpha``, ``alpha``).
    """

    mixes = True

    @ranges(alpha=">= 0.001, <= 1000")
    def __init__(self, alpha: float = 0.2) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Blended images, and labels (B, num_classes) of the same proportions."""
        others = on_device(rng.permutation(len(images)), images)
        weight = on_device(rng.beta(self.alpha, self.alpha, (len(images), 1)), images).to(images.dtype)
        images = torch.lerp(images, images[others], weight[:, :, None, None])
        return images, torch.lerp(labels, labels[others], weight)


class Cutmix(Augmentation):
    """Each image with a box out of another one of its batch, labels by area (Yun et al. 2019, arXiv 1905.04899).

    The box's share of the image is drawn from Beta(``alpha``, ``alpha``).
    """

    mixes = True

    @ranges(alpha=">= 0.001, <= 1000")
    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Patched images, and labels (B, num_classes) in proportion to the areas that are left."""
        height, width = images.shape[-2:]
        others = on_device(rng.permutation(len(images)), images)
        side = np.sqrt(rng.beta(self.alpha, self.alpha, (len(images), 1)))
        mask = _boxes(images, rng, np.round(side * height), np.round(side * width))
        weight = mask.float().mean((2, 3))
        images = torch.where(mask, images[others], images)
        return images, torch.lerp(labels, labels[others], weight)
