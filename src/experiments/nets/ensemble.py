"""Several networks as one."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Averages the class probabilities of networks that take the same images and know the same classes.

    Input as theirs, output logits (batch, num_classes): the logarithm of the mean probabilities.
    """

    same_in_every_step = True

    def __init__(self, nets: Iterable[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        if not self.nets:
            raise ValueError("nets=[] must name at least one network")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *shape) -> logits (batch, num_classes)."""
        members = torch.stack([net(x).float().log_softmax(1) for net in self.nets])  # bf16 makes ties of close ones
        return members.logsumexp(0) - math.log(len(self.nets))
