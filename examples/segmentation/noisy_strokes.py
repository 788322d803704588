"""Segmentation: which pixels of a noisy image belong to a digit? Measured by the intersection over union (IoU).

    python scripts/train.py --config-dir examples/segmentation/conf experiment=segmentation

The task needs no code: ``conf`` chooses ``outputs: mask`` and a metric. The data return one class for each pixel,
and the network gives logits of the classes for every pixel.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from experiments.data import Digits
from experiments.data.batches import Batch


class NoisyStrokes(Digits):
    """Handwritten digits in noise that is as bright as they are; the mask is where their strokes were."""

    class_names = ("background", "stroke")
    mean = (0.4509,)
    std = (0.2319,)
    note = "scikit-learn's digits, in noise"

    def read(self, split: Literal["train", "test"]) -> Batch:
        """Return uint8 images (N, 1, 28, 28) and masks, int64 (N, 28, 28): 0 is background, 1 is stroke."""
        images, _ = super().read(split)
        generator = torch.Generator().manual_seed(1 if split == "test" else 0)
        noise = 192 * torch.rand(images.shape, generator=generator)
        return (noise + images / 4).to(torch.uint8), (images[:, 0] > 96).long()


class FullyConvolutional(nn.Module):
    """Convolutions that keep an image's sides: (batch, in_channels, H, W) -> logits (batch, num_classes, H, W)."""

    cuda_graph_safe = True  # so that its steps may be replayed as CUDA graphs

    def __init__(self, in_channels: int, num_classes: int, width: int = 16, depth: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in [in_channels, *[width] * (depth - 1)]:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images -> logits of every pixel."""
        return self.layers(images)
