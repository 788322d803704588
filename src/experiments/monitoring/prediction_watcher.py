"""Base of callbacks that see the predictions of validation and test, without a second pass."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.hooks import RemovableHandle


class PredictionWatcher(Callback):
    """Base of callbacks that get the images, logits and labels of every validation and test batch.

    A forward hook captures the LightningModule's own output, so any module will do whose steps call ``self(images)``
    on batches of images and int64 labels and get logits (batch, num_classes). Subclasses accumulate on the device and
    reduce over ranks once a stage. Results of the last validation are shown when training ends, those of the test
    when it ends.
    """

    def __init__(self) -> None:
        self.class_names: list[str] = []  # empty where there are none: nothing is captured
        self._handle: RemovableHandle | None = None
        self._logits: Tensor | None = None

    def reset(self, pl_module: LightningModule, image_shape: tuple[int, ...]) -> None:
        """Start anew, for ``len(self.class_names)`` classes; tensors belong on the module's device."""
        raise NotImplementedError

    def update(self, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch."""
        raise NotImplementedError

    def reduce(self, trainer: Trainer, stage: str) -> None:
        """Reduce over ranks, and store the result of ``stage``: ``val`` or ``test``."""
        raise NotImplementedError

    def show(self, trainer: Trainer, stage: str) -> None:
        """Show the result of ``stage``, if there is one; called on rank 0 only."""
        raise NotImplementedError

    def _attach(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._detach()
        data = getattr(trainer, "datamodule", None)
        names = getattr(data, "class_names", None) or range(getattr(data, "num_classes", None) or 0)
        are_classes = getattr(pl_module, "outputs", "classes") == "classes"
        self.class_names = [str(name) for name in names] if are_classes else []
        if not self.class_names:
            return
        self.reset(pl_module, tuple(getattr(data, "image_shape", ())))
        self._handle = pl_module.register_forward_hook(self._capture_logits)

    def _capture_logits(self, module: Any, inputs: Any, output: Any) -> None:
        # under DDP the hook also gets the output of the step itself, which is no batch of logits
        if isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] == len(self.class_names):
            self._logits = output.detach()

    def _pass_on_batch(self, batch: Any) -> None:
        logits, self._logits = self._logits, None
        if logits is None or not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            return
        images, labels = batch
        if isinstance(labels, Tensor) and labels.shape == (len(logits),) and not labels.is_floating_point():
            self.update(images, logits.float(), labels)

    def _detach_and_reduce(self, trainer: Trainer, stage: str) -> None:
        if self._handle is not None:
            self._detach()
            self.reduce(trainer, stage)

    def _detach(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._logits = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._attach(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *indices: int
    ) -> None:
        self._pass_on_batch(batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *indices: int
    ) -> None:
        self._pass_on_batch(batch)

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._detach_and_reduce(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._detach_and_reduce(trainer, "test")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.show(trainer, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.show(trainer, "test")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._detach()


def sum_over_ranks(trainer: Trainer, values: Tensor) -> Tensor:
    """Sum a tensor over all ranks; returned on the CPU."""
    total = trainer.strategy.reduce(values, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total.cpu()


def probabilities(logits: Tensor) -> Tensor:
    """Class probabilities (batch, num_classes); what is not finite becomes 0."""
    return torch.softmax(logits, dim=1).nan_to_num_(0.0)
