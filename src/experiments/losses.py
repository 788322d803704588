"""Losses that torch does not have."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FocalLoss(nn.Module):
    """Cross-entropy that weighs a sample by (1 - p) ** gamma, p being its own class's probability.

    What the network knows already counts less; ``gamma=0`` is cross-entropy (Lin et al. 2017, arXiv 1708.02002, for
    any number of classes). Takes logits (batch, num_classes) and labels (batch,), gives the mean over the batch.

    Raises:
        ValueError: if ``gamma`` is negative.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"loss.gamma={gamma} must be at least 0")
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (batch, num_classes) and labels (batch,) -> a scalar."""
        cross_entropy = F.cross_entropy(logits, labels, reduction="none")
        doubt = -torch.expm1(-cross_entropy)  # 1 - p, exact where p is almost 1
        # at 0, the slope of a power below 1 is infinite
        doubt = doubt.clamp(min=torch.finfo(doubt.dtype).tiny)
        return (doubt**self.gamma * cross_entropy).mean()
