"""Losses beside torch's, and checks that loss, outputs and targets go together."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.errors import UserError, ranges

SAME_SHAPE_LOSSES = (
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
    if isinstance(loss, SAME_SHAPE_LOSSES) and not targets.is_floating_point():
        targets = F.one_hot(targets, outputs.shape[1]).movedim(-1, 1).float()
    if not type(loss).__module__.startswith("torch."):
        return loss(outputs, targets)
    with library_errors(f"loss: {type(loss).__name__}", outputs, targets):
        return loss(outputs, targets)


@contextmanager
def library_errors(what: str, outputs: Tensor, targets: Tensor) -> Iterator[None]:
    """Convert errors of a library's loss or metric into UserError, except out of memory."""
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


def require_matching_loss(output_type: str, loss: nn.Module, metrics: Mapping[str, nn.Module]) -> None:
    """Raise ValueError for a classification loss or metric with ``outputs=labels`` or ``values``.

    Only for pairs that torch accepts without an error.
    """
    if output_type not in ("labels", "values"):
        return
    if isinstance(loss, CLASSIFICATION_LOSSES):
        better = "BCEWithLogitsLoss" if output_type == "labels" else "MSELoss"
        raise ValueError(
            f"loss: {type(loss).__name__} is for one class an image, and model.outputs={output_type}: "
            f"type loss._target_=torch.nn.{better}"
        )
    for name, metric in metrics.items():
        if type(metric).__name__.startswith("Multiclass"):
            raise ValueError(
                f"metrics.{name}: {type(metric).__name__} is for one class an image, and model.outputs={output_type}"
            )


def require_shapes(output_type: str, outputs: Tensor, targets: Tensor, num_classes: int | None) -> None:
    """Raise UserError if the shapes of outputs and targets do not match; losses and metrics would broadcast them.

    ``output_type`` is the value of ``model.outputs``.
    """
    if output_type == "mask" and outputs.ndim == 2:
        raise UserError(
            f"model.net: it gives outputs {tuple(outputs.shape)}, and model.outputs=mask needs logits of each pixel, "
            "(batch, num_classes, height, width)"
        )
    per_class = outputs.shape[1:2] if output_type in ("labels", "values") else ()
    if outputs.ndim < 2 or targets.shape != (*outputs.shape[:1], *per_class, *outputs.shape[2:]):
        of_data = "of the same shape" if per_class else "of that shape without its second dimension, the classes"
        raise UserError(
            f"model.outputs={output_type}: outputs {tuple(outputs.shape)} of the network do not go with targets "
            f"{tuple(targets.shape)} of the data: targets must be {of_data}"
        )
    if num_classes not in (None, outputs.shape[1]):
        raise UserError(
            f"model.net: it gives {outputs.shape[1]} outputs an image, and the data have {num_classes} class_names"
        )


def require_one_class_per_image(labels: Tensor) -> None:
    """Raise UserError unless each image has one class, or probabilities of all classes that sum to 1."""
    is_soft = labels.is_floating_point() and labels.ndim == 2
    if (labels.ndim != 1 and not is_soft) or (is_soft and bool(((labels.sum(1) - 1).abs() > 1e-3).any())):
        are_labels = labels.ndim == 2 and bool(((labels == 0) | (labels == 1)).all())
        outputs = "mask" if labels.ndim == 3 else "labels" if are_labels else "values"
        raise UserError(
            f"data: labels {tuple(labels.shape)}: the Classifier needs one class an image, or shares that sum to 1. "
            "For another task, "
            "type model._target_=experiments.learning.Task +model.outputs="
            f"{outputs}"
        )


class WeightedCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy in which every class weighs as much as any other, however rare it is.

    A class's weight is the number of images over the number of classes times the class's own images; the weights
    travel in checkpoints. The mean is over images, not over their weights as torch has it: an epoch's loss does not
    depend on how it is cut into batches.
    """

    cuda_graph_safe = True

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

    cuda_graph_safe = True

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


CLASSIFICATION_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss, FocalLoss)
