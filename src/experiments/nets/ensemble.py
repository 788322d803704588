"""Several networks as one."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.errors import ranges


class Ensemble(nn.Module):
    """Averages the probabilities of networks that take the same images and know the same classes, or their values.

    Input as theirs, output logits (batch, num_classes): the logarithm of the mean probabilities; where ``outputs``
    are ``labels``, its log-odds. ``values`` are averaged as they are.
    """

    cuda_graph_safe = True

    @ranges(outputs=("classes", "labels", "values", "mask"))
    def __init__(self, nets: Iterable[nn.Module], outputs: str = "classes") -> None:
        super().__init__()
        self.outputs = outputs
        self.nets = nn.ModuleList(nets)
        if not self.nets:
            raise ValueError("nets=[] must name at least one network")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *shape) -> logits (batch, num_classes)."""
        if self.outputs == "values":
            return torch.stack([net(x).float() for net in self.nets]).mean(0)
        if self.outputs == "labels":
            logits = torch.stack([net(x).float() for net in self.nets])
            return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)
        members = torch.stack([net(x).float().log_softmax(1) for net in self.nets])  # bf16 makes ties of close ones
        return members.logsumexp(0) - math.log(len(self.nets))
