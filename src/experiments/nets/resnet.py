"""The tutorial's residual block, and its network with one; a block is written once and nests anywhere."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.errors import ranges
from experiments.nets.layers import CONV, GLOBAL_POOL, activation_layer, conv_norm


class ResBlock(nn.Module):
    """Two convolutions whose input is added before the last activation (tutorial, "residual block").

    Input (batch, in_channels, *size), output (batch, out_channels, *size / stride). Where the two differ, a 1×1
    convolution brings the input to the output's shape (He et al. 2015, arXiv 1512.03385, option B). Dropout acts
    between the convolutions (Zagoruyko & Komodakis 2016, arXiv 1605.07146).
    """

    cuda_graph_safe = True

    @ranges(
        in_channels="whole, >= 1",
        out_channels="whole, >= 1",
        stride="whole, >= 1",
        kernel_size="whole, odd, >= 1",
        dropout=">= 0, < 1",
        spatial_dims=(1, 2, 3),
    )
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        kernel_size: int = 3,
        activation: str = "ReLU",
        norm: str = "batch",
        dropout: float = 0.0,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        conv, padding = CONV[spatial_dims], kernel_size // 2
        self.conv1 = conv(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        self.bn1 = conv_norm(norm, out_channels, spatial_dims)
        self.relu = activation_layer(activation)
        self.conv2 = conv(out_channels, out_channels, kernel_size, padding=padding)
        self.bn2 = conv_norm(norm, out_channels, spatial_dims)
        self.dropout_p = dropout
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv(in_channels, out_channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, *size) -> (batch, out_channels, *size / stride)."""
        identity = x if self.shortcut is None else self.shortcut(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = F.dropout(out, self.dropout_p, self.training)
        out = self.bn2(self.conv2(out))
        return self.relu(out + identity)


class ResNet(nn.Module):
    """A convolution, residual blocks, global pooling and one linear layer (tutorial, ``NetWithResBlock``).

    Input (batch, in_channels, *size) of any size, output logits (batch, num_classes); 5,034 parameters by default.
    ``channels`` has one entry a stage of ``blocks_per_stage`` blocks; the first block of every stage but the first
    divides the image's sides by ``stride``. With one block in all, ``resblock`` is that block, as in the tutorial;
    otherwise it is the sequence of them.
    """

    cuda_graph_safe = True

    @ranges(
        in_channels="whole, >= 1",
        num_classes="whole, >= 1",
        channels="list, whole, >= 1",
        blocks_per_stage="whole, >= 1",
        kernel_size="whole, odd, >= 1",
        stride="whole, >= 1",
        pool=("max", "avg"),
        dropout=">= 0, < 1",
        spatial_dims=(1, 2, 3),
    )
    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        channels: Sequence[int] = (16,),
        blocks_per_stage: int = 1,
        kernel_size: int = 3,
        stride: int = 2,
        activation: str = "ReLU",
        norm: str = "batch",
        pool: str = "avg",
        dropout: float = 0.0,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        if not channels:
            raise ValueError("channels=[] must name at least one stage")

        def block(before: int, after: int, step: int) -> ResBlock:
            return ResBlock(before, after, step, kernel_size, activation, norm, dropout, spatial_dims)

        blocks: list[ResBlock] = []
        for stage, width in enumerate(channels):
            before, first_stride = (channels[stage - 1], stride) if stage else (width, 1)
            blocks.append(block(before, width, first_stride))
            blocks += [block(width, width, 1) for _ in range(blocks_per_stage - 1)]

        self.input_layer = CONV[spatial_dims](in_channels, channels[0], kernel_size, padding=kernel_size // 2)
        self.resblock: nn.Module = blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks)
        self.pool = GLOBAL_POOL[pool][spatial_dims]((1,) * spatial_dims)
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, *size) -> logits (batch, num_classes)."""
        x = self.resblock(self.input_layer(x))
        return self.fc(torch.flatten(self.pool(x), 1))
