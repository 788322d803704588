"""Stop on a loss that is not finite, before it reaches a checkpoint."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from experiments.errors import UserError, ranges


class FiniteLoss(Callback):
    """Raises UserError when a training loss, or ``val/loss``, was NaN or infinite.

    Training losses stay on the device and are looked at together: every ``every_n_steps`` batches, before each
    validation and before every checkpoint, so that none is written of a network that is lost.
    """

    handles_batch_lists = True

    @ranges(every_n_steps="whole, >= 1")
    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._losses: list[Tensor] = []
        self._count = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss; look at the noted ones now and then."""
        loss = outputs.get("losses", outputs.get("loss")) if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            self._losses.append(loss.detach().reshape(-1))
            self._count += loss.numel()
        if self._count >= self.every_n_steps:
            self.check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look before the best checkpoint is chosen."""
        self.check(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the validation's own loss: the last step before it may have lost the network."""
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and not loss.isfinite() and not trainer.sanity_checking:
            raise UserError(
                f"the validation loss became {loss.item()} in epoch {trainer.current_epoch + 1}, after step "
                f"{trainer.global_step - 1}. {advice(trainer)}"
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look before a checkpoint is written."""
        self.check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer)

    def check(self, trainer: Trainer) -> None:
        """Raise UserError if a noted loss is not finite; forget them otherwise."""
        if not self._losses:
            return
        losses, self._losses, self._count = torch.cat(self._losses), [], 0
        wrong = (~losses.isfinite()).nonzero().flatten().tolist()
        if not wrong:
            return
        ago = (len(losses) - 1 - wrong[0]) // trainer.accumulate_grad_batches
        raise UserError(
            f"the training loss became {losses[wrong[0]].item()} in epoch {trainer.current_epoch + 1}, step "
            f"{trainer.global_step - 1 - ago} (found {ago} steps later). {advice(trainer, ago)}"
        )


def advice(trainer: Trainer, ago: int = 0) -> str:
    """What to do about a loss that is not finite, that many steps ``ago``."""
    rates = ", ".join(f"{group['lr']:g}" for optimizer in trainer.optimizers for group in optimizer.param_groups)
    rate = f"The learning rate is {rates} now" if ago else f"It happened at learning rate {rates}"
    return (
        f"{rate}. No checkpoint was written since. Lower optimizer.lr, clip gradients (trainer.gradient_clip_val=1), "
        "or find the operation with debug=anomaly."
    )
