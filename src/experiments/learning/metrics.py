"""The metric that torchmetrics does not have as it is wanted here."""

import torch
from torch import Tensor
from torchmetrics import Metric

from experiments.errors import UserError


def at_least_32_bits(values: Tensor) -> Tensor:
    """The values in a precision that sums do not stand still in, as they would in bf16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def single_number(name: str, metric: Metric) -> Tensor:
    """What a metric has come to.

    Raises:
        UserError: if it is a matrix, a curve or a value a class, which cannot be logged under one name.
    """
    value = metric.compute()
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise UserError(
            f"metrics.{name}: {type(metric).__name__} gives no single number, which is what can be logged. Leave it "
            "out, or set its average to macro or micro"
        )
    return value


class MeanLoss(Metric):
    """The mean loss over samples, from the mean losses of batches and their sizes; right across ranks.

    ``torchmetrics.MeanMetric`` either looks at every value for NaN, which makes a GPU wait in every step and leaves
    the NaN out of the mean, or, told not to look (``nan_strategy="disable"``, 1.9), forgets the sizes.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, batch_size: int) -> None:
        """Count a batch by its mean loss, a scalar, and its size."""
        self.total = at_least_32_bits(self.total) + at_least_32_bits(loss) * batch_size
        self.count += batch_size

    def compute(self) -> Tensor:
        """The mean over all samples so far, a scalar."""
        return self.total / self.count
