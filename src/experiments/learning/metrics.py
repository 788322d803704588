"""Metrics that torchmetrics does not have as they are wanted here."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric

from experiments.errors import UserError


def at_least_32_bits(values: Tensor) -> Tensor:
    """The values in a precision that sums do not stand still in, as they would in bf16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def predictions_of(outputs: Tensor, output_type: str) -> Tensor:
    """What a network's outputs (batch, K, ...) say: probabilities; where ``output_type`` is ``values``, these.

    ``Task`` says what types there are.
    """
    if output_type == "values":
        return outputs
    return torch.sigmoid(outputs) if output_type == "labels" else torch.softmax(outputs, dim=1)


def single_number(name: str, metric: Metric) -> Tensor:
    """What a metric has come to.

    Raises:
        UserError: if it is a matrix, a curve or a value a class, which cannot be logged under one name.
    """
    value = metric.compute()
    if not isinstance(value, Tensor) or value.numel() != 1:
        kind = type(metric.metric if isinstance(metric, OverPresentClasses) else metric)
        raise UserError(
            f"metrics.{name}: {kind.__name__} gives no single number, which is what can be logged. Leave it "
            "out, or set its average to macro or micro"
        )
    return value


class OverPresentClasses(Metric):
    """A metric with ``average="macro"``, whose mean is over the classes that have an image.

    torchmetrics (1.9) takes a class that no image has for one that is always missed.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, metric: Metric, num_classes: int) -> None:
        super().__init__()
        self.metric = metric
        self.add_state("counts", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Count a batch of probabilities (batch, num_classes) and labels (batch,)."""
        self.metric.update(probabilities, labels)
        self.counts += torch.bincount(labels, minlength=len(self.counts))

    def compute(self) -> Tensor:
        """The mean over the classes so far that have an image."""
        if bool((self.counts > 0).all()):
            return self.metric.compute()
        self.metric.average = "none"
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of the absent classes, left out here
            values: Tensor = self.metric.compute()
        self.metric.average = "macro"
        return values[self.counts > 0].mean()

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self.metric.reset()


def own_metrics(metrics: Mapping[str, Metric], num_classes: int | None) -> dict[str, Metric]:
    """A split's own copies of metrics; means over ``num_classes``, if given, leave out those without an image."""
    copies = {name: metric.clone() for name, metric in metrics.items()}
    macro = {name for name, metric in copies.items() if getattr(metric, "average", None) == "macro"}
    if num_classes is None:
        return copies
    return {name: OverPresentClasses(own, num_classes) if name in macro else own for name, own in copies.items()}


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
