"""Augmentations that change colours and sharpness, each image by amounts of its own."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as torchvision

from experiments.data.augmentation.base import Augmentation, Batch, constant, interval, on_device, uniform
from experiments.errors import ranges


class ColorJitter(Augmentation):
    """Brightness, contrast, saturation and hue, in this order, as torchvision's functions of these names change them.

    Args:
        brightness: factors are drawn from 1 plus or minus this, and from 0 on.
        contrast: likewise.
        saturation: likewise; grey images have none.
        hue: shifts are drawn from plus or minus this share of the colour circle; it costs most.
    """

    moves_pixels = False

    @ranges(brightness=">= 0", contrast=">= 0", saturation=">= 0", hue=">= 0, <= 0.5")
    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1
    ) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Each image with factors of its own."""

        def factors(amount: float) -> Tensor:
            return uniform(rng, images, max(0.0, 1 - amount), 1 + amount).view(-1, 1, 1, 1)

        if self.brightness:
            images = (images * factors(self.brightness)).clamp_(0, 1)
        if self.contrast:
            grey = torchvision.rgb_to_grayscale(images) if images.shape[1] == 3 else images
            images = _blended(images, grey.mean((1, 2, 3), keepdim=True), factors(self.contrast))
        if images.shape[1] == 3 and self.saturation:
            images = _blended(images, torchvision.rgb_to_grayscale(images), factors(self.saturation))
        if images.shape[1] == 3 and self.hue:
            images = hue_shifted(images, uniform(rng, images, -self.hue, self.hue))
        return images, labels


def _blended(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    return torch.lerp(others.expand_as(images), images, factors).clamp_(0, 1)


def hue_shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """RGB images with their hue turned by shares of the colour circle, one an image.

    Hue is a place on the circle red, green, blue; brightness (the largest channel) and chroma (largest less smallest)
    stay, and each channel follows from them (Smith 1978, "Color Gamut Transform Pairs").
    """
    red, green, blue = images.unbind(1)
    largest, smallest = images.amax(1), images.amin(1)
    chroma = largest - smallest
    divisor = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(
        largest == red,
        (green - blue) / divisor,
        torch.where(largest == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue = hue + shifts.view(-1, 1, 1) * 6
    offsets = constant((5.0, 3.0, 1.0), images.device).view(-1, 1, 1)
    place = (hue[:, None] + offsets) % 6
    rise = torch.minimum(place, 4 - place).clamp_(0, 1)
    return (largest[:, None] - chroma[:, None] * rise).clamp_(0, 1)


class Grey(Augmentation):
    """Colours taken away, with this probability; the three channels stay."""

    moves_pixels = False

    @ranges(probability=">= 0, <= 1")
    def __init__(self, probability: float = 0.2) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Each image in grey or not."""
        chosen = uniform(rng, images, 0, 1) < self.probability
        if images.shape[1] != 3:
            return images, labels
        grey = torchvision.rgb_to_grayscale(images, num_output_channels=3)
        return torch.where(chosen.view(-1, 1, 1, 1), grey, images), labels


class Blur(Augmentation):
    """A Gaussian blur, with this probability.

    Args:
        sigma: the range of its standard deviation, in pixels.
        probability: of an image to be blurred.
    """

    moves_pixels = False

    @ranges(sigma="list, > 0, <= 50", probability=">= 0, <= 1")
    def __init__(self, sigma: Sequence[float] = (0.1, 2.0), probability: float = 0.5) -> None:
        super().__init__()
        self.sigma, self.probability = interval("sigma", sigma), probability

    def forward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Batch:
        """Each image blurred by an amount of its own, or not."""
        chosen = rng.random(len(images)) < self.probability
        sigma = uniform(rng, images, *self.sigma)
        which = on_device(np.flatnonzero(chosen), images)
        if not len(which):
            return images, labels
        images = images.clone()
        images[which] = blurred(images[which], sigma[which])
        return images, labels


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (B, C, H, W) blurred by standard deviations (B,) in pixels, mirrored beyond their sides."""
    count, channels, height, width = images.shape
    # three standard deviations to each side, as far as there are pixels to mirror
    reach = min(max(1, round(3 * sigma.max().item())), min(height, width) - 1)
    distance = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    planes = F.pad(images, (reach,) * 4, mode="reflect").view(1, count * channels, height + 2 * reach, -1)
    rows = F.conv2d(planes, kernel[:, None, None, :], groups=count * channels)
    return F.conv2d(rows, kernel[:, None, :, None], groups=count * channels).view(images.shape)
