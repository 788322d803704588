"""Base of callbacks that see the predictions of validation and test, without a second pass."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.hooks import RemovableHandle


class PredictionWatcher(Callback):
    """Base of what sees the images, logits and labels of every validation and test batch.

    It listens to the LightningModule's own output, so any module is seen whose steps call ``self(images)`` on batches
    of images and int64 labels and get logits (batch, num_classes). Counting stays on the device; ranks meet once, at
    the end. What is found of the last validation is shown when training ends, what is found in the test after it.
    """

    def __init__(self) -> None:
        self.class_names: list[str] = []  # none: the data set does not say what its classes are
        self._handle: RemovableHandle | None = None
        self._logits: Tensor | None = None

    def begin(self, pl_module: LightningModule, image_shape: tuple[int, ...]) -> None:
        """Start counting ``len(self.class_names)`` classes, with tensors on the module's device."""
        raise NotImplementedError

    def update(self, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count one batch."""
        raise NotImplementedError

    def end(self, trainer: Trainer, stage: str) -> None:
        """Sum over ranks, and keep for ``stage``: ``val`` or ``test``."""
        raise NotImplementedError

    def show(self, trainer: Trainer, stage: str) -> None:
        """Show what was kept for ``stage``, if anything was; called on the first rank alone."""
        raise NotImplementedError

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._stop()
        data = getattr(trainer, "datamodule", None)
        names = getattr(data, "class_names", None) or range(getattr(data, "num_classes", None) or 0)
        self.class_names = [str(name) for name in names]
        if not self.class_names:
            return
        self.begin(pl_module, tuple(getattr(data, "image_shape", ())))
        self._handle = pl_module.register_forward_hook(self._hear)

    def _hear(self, module: Any, inputs: Any, output: Any) -> None:
        # under DDP the hook also hears the step itself, whose output is no batch of logits
        if isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] == len(self.class_names):
            self._logits = output.detach()

    def _count(self, batch: Any) -> None:
        logits, self._logits = self._logits, None
        if logits is None or not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            return
        images, labels = batch
        if isinstance(labels, Tensor) and labels.shape == (len(logits),) and not labels.is_floating_point():
            self.update(images, logits.float(), labels)

    def _finish(self, trainer: Trainer, stage: str) -> None:
        if self._handle is not None:
            self._stop()
            self.end(trainer, stage)

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._logits = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *indices: int
    ) -> None:
        self._count(batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *indices: int
    ) -> None:
        self._count(batch)

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, "test")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.show(trainer, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.show(trainer, "test")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()


def summed(trainer: Trainer, values: Tensor) -> Tensor:
    """The sum over all ranks, on the CPU."""
    total = trainer.strategy.reduce(values, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total.cpu()


def probabilities(logits: Tensor) -> Tensor:
    """Class probabilities (batch, num_classes); what is not finite becomes 0."""
    return torch.softmax(logits, dim=1).nan_to_num_(0.0)
