"""Losses that torch does not have as they are wanted here."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.errors import UserError, ranges

BETWEEN_EQUAL_SHAPES = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCEWithLogitsLoss,
    nn.MultiLabelSoftMarginLoss,
)


def compute_loss(loss: nn.Module, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss between outputs (batch, K, ...) and targets, classes (batch, ...) or floats (batch, K, ...): a scalar.

    A loss of torch's that compares equal shapes gets classes one-hot (batch, K, ...).

    Raises:
        UserError: if a loss of torch's does not go with the targets, or gives no scalar.
    """
    if isinstance(loss, BETWEEN_EQUAL_SHAPES) and not targets.is_floating_point():
        targets = F.one_hot(targets, outputs.shape[1]).movedim(-1, 1).float()
    if not type(loss).__module__.startswith("torch."):
        return loss(outputs, targets)
    with as_user_error(f"loss: {type(loss).__name__}", outputs, targets):
        return loss(outputs, targets)


@contextmanager
def as_user_error(what: str, outputs: Tensor, targets: Tensor) -> Iterator[None]:
    """Turn what a loss or metric of a library raises into a UserError, but for a lack of memory."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if "memory" in str(error):
            raise
        raise UserError(
            f"{what} does not go with outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def refuse_losses_of_classes(kind: str, loss: nn.Module, metrics: Mapping[str, nn.Module]) -> None:
    """Raise ValueError for a loss or a metric of classes where outputs are labels or values, which torch lets pass.

    What raises by itself is left to do so.
    """
    if kind not in ("labels", "values"):
        return
    if isinstance(loss, BETWEEN_CLASSES):
        better = "BCEWithLogitsLoss" if kind == "labels" else "MSELoss"
        raise ValueError(
            f"loss: {type(loss).__name__} is between classes, and model.outputs={kind}: "
            f"type loss._target_=torch.nn.{better}"
        )
    for name, metric in metrics.items():
        if type(metric).__name__.startswith("Multiclass"):
            raise ValueError(f"metrics.{name}: {type(metric).__name__} is of classes, and model.outputs={kind}")


def require_shapes(kind: str, outputs: Tensor, targets: Tensor, num_classes: int | None) -> None:
    """Raise UserError unless outputs are of as many classes as there are, and targets of the shape that ``kind`` has.

    Losses and metrics would broadcast them without a word.
    """
    per_class = outputs.shape[1:2] if kind in ("labels", "values") else ()
    if outputs.ndim < 2 or targets.shape != (*outputs.shape[:1], *per_class, *outputs.shape[2:]):
        of_data = "of the same shape" if per_class else "of that shape without its second dimension, the classes"
        raise UserError(
            f"model.outputs={kind}: outputs {tuple(outputs.shape)} of the network do not go with targets "
            f"{tuple(targets.shape)} of the data: targets must be {of_data}"
        )
    if num_classes not in (None, outputs.shape[1]):
        raise UserError(
            f"model.net: it gives outputs {tuple(outputs.shape)}, and the data have {num_classes} class_names"
        )


def require_single_labels(labels: Tensor) -> None:
    """Raise UserError unless each image is of one class, or of several whose shares sum to 1."""
    shares = labels.is_floating_point() and labels.ndim == 2
    if (labels.ndim != 1 and not shares) or (shares and bool(((labels.sum(1) - 1).abs() > 1e-3).any())):
        raise UserError(
            f"data: labels {tuple(labels.shape)} of several classes at once, and the Classifier counts one an image; "
            "type model._target_=experiments.learning.Task +model.outputs=labels"
        )


class WeightedCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy in which every class weighs as much as any other, however rare it is.

    A class's weight is the number of images over the number of classes times the class's own images; the weights
    travel in checkpoints. The mean is over images, not over their weights as torch has it: an epoch's loss does not
    depend on how it is cut into batches.
    """

    can_be_replayed = True

    @ranges(label_smoothing=">= 0, <= 1")
    def __init__(self, class_counts: Sequence[int], label_smoothing: float = 0.0) -> None:
        counts = torch.tensor(class_counts, dtype=torch.float64)
        if counts.ndim != 1 or not (counts >= 1).all():
            raise ValueError(f"class_counts={list(class_counts)}: every class needs an image to train on")
        weight = counts.sum() / (len(counts) * counts)
        super().__init__(weight=weight.float(), label_smoothing=label_smoothing, reduction="none")

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits (batch, num_classes) and labels (batch,) -> a scalar."""
        return super().forward(input, target).mean()


class FocalLoss(nn.Module):
    """Cross-entropy that weighs a sample by (1 - p) ** gamma, p being its own class's probability.

    What the network knows already counts less; ``gamma=0`` is cross-entropy (Lin et al. 2017, arXiv 1708.02002, for
    any number of classes). Takes logits (batch, num_classes) and labels (batch,), gives the mean over the batch.

    Raises:
        ValueError: if ``gamma`` is negative.
    """

    can_be_replayed = True

    @ranges(gamma=">= 0")
    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (batch, num_classes) and labels (batch,) -> a scalar."""
        cross_entropy = F.cross_entropy(logits, labels, reduction="none")
        doubt = -torch.expm1(-cross_entropy)  # 1 - p, exact where p is almost 1
        # at 0, the slope of a power below 1 is infinite
        doubt = doubt.clamp(min=torch.finfo(doubt.dtype).tiny)
        return (doubt**self.gamma * cross_entropy).mean()


BETWEEN_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss, FocalLoss)
