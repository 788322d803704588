"""The tutorial's network with a residual block."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experiments.errors import ranges
from experiments.nets.blocks import ResBlock
from experiments.nets.layers import CONV, GLOBAL_POOL


class ResNet(nn.Module):
    """A convolution, residual blocks, global pooling and one linear layer (tutorial, ``NetWithResBlock``).

    Input (batch, in_channels, *size) of any size, output logits (batch, num_classes); 5,034 parameters by default.
    ``channels`` has one entry a stage of ``blocks_per_stage`` blocks; the first block of every stage but the first
    divides the image's sides by ``stride``. With one block in all, ``resblock`` is that block, as in the tutorial;
    otherwise it is the sequence of them.
    """

    same_in_every_step = True

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
