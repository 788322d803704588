"""The tutorial's simple convolutional network."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from experiments.errors import ranges
from experiments.nets.layers import CONV, POOL, activation_layer, conv_norm, dropout_layer, grid_size, stack


class CNN(nn.Module):
    """Convolution, activation and pooling, repeated; then one linear layer (tutorial, ``SimpleCNN``).

    Input (batch, in_channels, *image_size), output logits (batch, num_classes); 50,186 parameters by default.
    One stage an entry of ``channels``; each stage divides the image's sides by ``stride`` and by 2.
    """

    cuda_graph_safe = True

    @ranges(
        in_channels="whole, >= 1",
        image_size="list or one, whole, >= 1",
        num_classes="whole, >= 1",
        channels="list, whole, >= 1",
        kernel_size="whole, odd, >= 1",
        stride="whole, >= 1",
        pool=("max", "avg"),
        dropout=">= 0, < 1",
        spatial_dims=(1, 2, 3),
    )
    def __init__(
        self,
        in_channels: int = 1,
        image_size: int | Sequence[int] = 28,
        num_classes: int = 10,
        channels: Sequence[int] = (32, 64),
        kernel_size: int = 3,
        stride: int = 1,
        activation: str = "ReLU",
        norm: str = "none",
        pool: str = "max",
        dropout: float = 0.0,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        size = start = grid_size(image_size, spatial_dims)
        layers: list[nn.Module] = []
        before = in_channels
        for after in channels:
            layers += [
                CONV[spatial_dims](before, after, kernel_size, stride=stride, padding=kernel_size // 2),
                conv_norm(norm, after, spatial_dims),
                activation_layer(activation),
                POOL[pool][spatial_dims](kernel_size=2, stride=2),
                dropout_layer(dropout),
            ]
            before = after
            size = tuple(((side - 1) // stride + 1) // 2 for side in size)
            if min(size) < 1:
                raise ValueError(
                    f"channels={list(channels)} is too deep for image_size={list(start)}: each of the "
                    f"{len(channels)} stages divides the sides by {2 * stride}; use fewer stages or larger images"
                )
        self.conv_stack = stack(layers)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(before * math.prod(size), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, *image_size) -> logits (batch, num_classes)."""
        return self.fc(self.flatten(self.conv_stack(x)))
