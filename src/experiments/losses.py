"""Losses that torch does not have as they are wanted here."""

from collections.abc import Sequence

import torch
from torch import nn


class WeightedCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy in which every class weighs as much as any other, however rare it is.

    A class's weight is the number of images over the number of classes times the class's own images; the weights
    travel in checkpoints.
    """

    def __init__(self, class_counts: Sequence[int], label_smoothing: float = 0.0) -> None:
        counts = torch.tensor(class_counts, dtype=torch.float64)
        if counts.ndim != 1 or not (counts >= 1).all():
            raise ValueError(f"class_counts={list(class_counts)}: every class needs an image to train on")
        weight = counts.sum() / (len(counts) * counts)
        super().__init__(weight=weight.float(), label_smoothing=label_smoothing)
