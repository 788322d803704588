"""Classification, the task of most networks here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from experiments.data.batches import Batch
from experiments.errors import UserError
from experiments.learning.losses import compute_loss, require_one_class_per_image
from experiments.learning.metrics import MeanLoss, own_metrics
from experiments.learning.param_groups import ParamGroup
from experiments.learning.task import Task


class Classifier(Task):
    """Trains a network that maps normalised images (batch, C, H, W) to logits (batch, num_classes).

    Logs ``accuracy`` beside ``loss``. Further metrics receive class probabilities (batch, num_classes) and labels.
    All else is as in ``Task``.
    """

    cuda_graph_safe = True

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        num_classes: int,
        scheduler: Callable[..., LRScheduler] | None = None,
        metrics: Mapping[str, Metric] | None = None,
        card: dict[str, Any] | None = None,
        monitor: str = "val/accuracy",
        param_groups: Mapping[str, ParamGroup] | None = None,
    ) -> None:
        super().__init__(
            net, loss, optimizer, num_classes, scheduler, metrics, card, monitor, param_groups, outputs="classes"
        )
        self.num_classes: int = num_classes

    def make_metrics(self, stage: str, further: Mapping[str, Metric]) -> dict[str, Metric]:
        """The mean loss, the accuracy, and copies of the further metrics."""
        assert self.num_classes is not None
        accuracy = MulticlassAccuracy(self.num_classes, average="micro", validate_args=False)  # a GPU would wait
        own = {"loss": MeanLoss(), "accuracy": accuracy}
        return own if stage == "train" else {**own, **own_metrics(further, self.num_classes)}

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One forward pass: the mean loss, a scalar, and the logits (batch, num_classes)."""
        images, labels = batch
        if labels.ndim != 1 and (not self.training or self.trainer.global_step == 0):
            require_one_class_per_image(labels)
        logits = self(images)
        if logits.ndim != 2 or logits.shape[1] < self.num_classes:
            raise UserError(
                f"model.net: it gives outputs {tuple(logits.shape)}, and the data have {self.num_classes} classes. "
                f"It must give logits (batch, {self.num_classes})"
            )
        return compute_loss(self.loss, logits, labels), logits

    def update_metrics(self, metrics: Sequence[tuple[str, Metric]], outputs: Tensor, targets: Tensor) -> None:
        """Update the accuracy with logits, the others with probabilities."""
        (_, accuracy), *further = metrics
        # of mixed images, the class with the larger part counts
        accuracy.update(outputs, targets.argmax(1) if targets.is_floating_point() else targets)
        if further:
            super().update_metrics(further, outputs, targets)
