"""Regression: by how many degrees is a digit turned? One value an image, measured by its mean absolute error.

    python scripts/train.py --config-dir examples/regression/conf experiment=regression

The task needs no code: ``conf`` chooses ``model.outputs=values``, a loss and a metric. The data return float targets
(N, values), whose names are ``class_names``. Any network of ``model=`` will do.
"""

import math
from typing import Literal

import torch
from torch.nn import functional as F

from experiments.data import Digits
from experiments.data.batches import Batch


class TurnedDigits(Digits):
    """Handwritten digits, each turned counter-clockwise by an angle of -45 to 45 degrees, always the same."""

    class_names = ("angle",)  # one name a value: what the network gives, and the column of predictions
    mean = (0.2998,)
    std = (0.3195,)
    note = "scikit-learn's digits, turned"

    def read(self, split: Literal["train", "test"]) -> Batch:
        """Return uint8 images (N, 1, 28, 28) and angles in degrees, float (N, 1)."""
        images, _ = super().read(split)
        generator = torch.Generator().manual_seed(1 if split == "test" else 0)
        angles = 90 * torch.rand(len(images), 1, generator=generator) - 45
        return turned(images, angles), angles


def turned(images: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images (N, 1, H, W) counter-clockwise by degrees (N, 1)."""
    radians = angles[:, 0] * math.pi / 180
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros(len(angles))
    sources = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(sources, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False).round().to(torch.uint8)
