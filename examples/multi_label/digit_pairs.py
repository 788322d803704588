"""Several labels at once: which digits stand in an image? Measured by the F1 score, averaged over labels.

    python scripts/train.py --config-dir examples/multi_label/conf experiment=multi_label

The task needs no code: ``conf`` chooses ``model.outputs=labels``, a loss and a metric. The data return targets of 0
and 1 (N, labels). Any network of ``model=`` will do.
"""

from typing import Literal

import torch

from experiments.data import Digits
from experiments.data.batches import Batch


class DigitPairs(Digits):
    """Two handwritten digits side by side, each in one pair alone; a pair of equal digits has one label."""

    image_shape = (1, 28, 56)
    note = "scikit-learn's digits, in pairs"

    def read(self, split: Literal["train", "test"]) -> Batch:
        """Return uint8 images (N, 1, 28, 56) and labels, uint8 (N, 10): 1 where a digit is there."""
        images, digits = Digits().read(split)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        left, right = order[: len(order) // 2], order[-(len(order) // 2) :]
        labels = torch.zeros(len(left), len(self.class_names), dtype=torch.uint8)
        for side in (left, right):
            labels[torch.arange(len(left)), digits[side]] = 1
        return torch.cat([images[left], images[right]], dim=3), labels
