"""Augmentations that photographs are usually trained with: random resized crops and TrivialAugment."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as torchvision

from experiments.data.augmentation.base import Augmentation, Batch, interval, on_device
from experiments.errors import ranges

ATTEMPTS = 10  # to draw a part that fits into the image, as in torchvision


class ResizedCrop(Augmentation):
    """A random part of an image, brought to its size (Szegedy et al. 2015, arXiv 1409.4842).

    Args:
        scale: the range of the part's share of the image's area.
        ratio: the range of its width over its height, in which logarithms are drawn evenly.
    """

    @ranges(scale="list, > 0, <= 1", ratio="list, > 0")
    def __init__(self, scale: Sequence[float] = (0.35, 1.0), ratio: Sequence[float] = (0.75, 4 / 3)) -> None:
        super().__init__()
        self.scale, self.ratio = interval("scale", scale), interval("ratio", ratio)

    def boxes(self, images: Tensor, rng: np.random.Generator) -> Any:
        """Each image's part: (B, 4) as top, left, height and width, in pixels."""
        count, (height, width) = len(images), images.shape[-2:]
        area = height * width * rng.uniform(*self.scale, (count, ATTEMPTS))
        ratio = np.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), (count, ATTEMPTS)))
        widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        first = fits.argmax(1)  # or else as much of the centre as the ratio allows
        whole = min(max(width / height, self.ratio[0]), self.ratio[1])
        centre = min(width, round(height * whole)), min(height, round(width / whole))
        some = fits.any(axis=1, keepdims=True)
        chosen = np.where(some, np.stack((widths, heights), 2)[np.arange(count), first], centre)
        room = np.array((width, height)) - chosen
        corners = np.where(some, rng.integers(0, room.astype(int) + 1), room // 2)
        return np.stack((corners[:, 1], corners[:, 0], chosen[:, 1], chosen[:, 0]), 1)

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """A part of its own of each image."""
        return cropped(images, on_device(self.boxes(images, rng), images)), labels


def cropped(images: Tensor, boxes: Tensor) -> Tensor:
    """Parts of images, (B, 4) as top, left, height and width in pixels, enlarged to the images' size, bilinear."""
    places = []
    for side, start, length in ((-2, boxes[:, 0], boxes[:, 2]), (-1, boxes[:, 1], boxes[:, 3])):
        size = images.shape[side]
        steps = (torch.arange(size, device=images.device) + 0.5) / size
        # no pixel beyond the part has a say in its border
        inside = (steps * length[:, None] - 0.5).clamp(min=0).minimum(length[:, None] - 1) + start[:, None]
        places.append(((inside + 0.5) * 2 / size - 1).to(images.dtype))
    rows, columns = places
    shape = len(images), rows.shape[1], columns.shape[1]
    grid = torch.stack((columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)), -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


BINS = 31


def _sheared(image: Tensor, x: float, y: float) -> Tensor:
    angles = [math.degrees(math.atan(by)) for by in (x, y)]
    return torchvision.affine(image, 0.0, [0, 0], 1.0, angles, center=[0, 0])


def _shifted(image: Tensor, x: float, y: float) -> Tensor:
    return torchvision.affine(image, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0])


Change = Callable[[Tensor, float], Tensor]
#: For each change its largest amount, whether it has a sign, and what it does: TrivialAugment's wide ranges.
CHANGES: dict[str, tuple[float, bool, Change]] = {
    "identity": (0.0, False, lambda image, _: image),
    "shear_x": (0.99, True, lambda image, by: _sheared(image, by, 0)),
    "shear_y": (0.99, True, lambda image, by: _sheared(image, 0, by)),
    "translate_x": (32.0, True, lambda image, by: _shifted(image, by, 0)),
    "translate_y": (32.0, True, lambda image, by: _shifted(image, 0, by)),
    "rotate": (135.0, True, torchvision.rotate),
    "brightness": (0.99, True, lambda image, by: torchvision.adjust_brightness(image, 1 + by)),
    "color": (0.99, True, lambda image, by: torchvision.adjust_saturation(image, 1 + by)),
    "contrast": (0.99, True, lambda image, by: torchvision.adjust_contrast(image, 1 + by)),
    "sharpness": (0.99, True, lambda image, by: torchvision.adjust_sharpness(image, 1 + by)),
    "posterize": (6.0, False, lambda image, by: torchvision.posterize(image, 8 - round(by))),
    "solarize": (1.0, False, lambda image, by: torchvision.solarize(image, 1 - by)),
    "autocontrast": (0.0, False, lambda image, _: torchvision.autocontrast(image)),
    "equalize": (0.0, False, lambda image, _: torchvision.equalize(image)),
}  # fmt: skip


class TrivialAugment(Augmentation):
    """One change of any strength an image, out of 14 (Müller & Hutter 2021, arXiv 2103.10158), by torchvision.

    It has nothing to tune: shifts reach as far as 32 pixels, also of small images.
    """

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Each image with a change of its own."""
        names = rng.choice(list(CHANGES), len(images))
        steps, signs = rng.integers(BINS, size=len(images)), rng.integers(2, size=len(images))
        drawn = zip(images, names, steps, signs, strict=True)
        return torch.stack([changed(image, name, int(step), bool(sign)) for image, name, step, sign in drawn]), labels


def changed(image: Tensor, name: str, step: int, negative: bool) -> Tensor:
    """An image (C, H, W) after the change of a name, ``step`` out of ``BINS`` between nothing and the most."""
    most, signed, function = CHANGES[name]
    return function(image, most * step / (BINS - 1) * (-1 if signed and negative else 1)).clamp(0, 1)
