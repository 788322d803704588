"""Stop on a loss that is not finite, before it reaches a checkpoint."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from experiments.errors import UserError, ranges
from experiments.learning import Task
from experiments.learning.steps import HostCopies


class FiniteLoss(Callback):
    """Raises UserError when a training loss, or ``val/loss``, was NaN or infinite.

    Training losses are looked at together: every ``every_n_steps`` batches, on a GPU once they have arrived from it,
    before each validation and before every checkpoint, so that none is written of a network that is lost.
    """

    handles_batch_lists = True

    @ranges(every_n_steps="whole, >= 1")
    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._forget()

    def _forget(self) -> None:
        self._losses: list[Tensor] = []
        self._count = 0  # how many of them
        self._unseen = 0  # how many are on their way
        self._copies = HostCopies()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what a fit before has left, which may have ended in the middle."""
        self._forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let the losses of the last steps be logged: they are the ones that one looks for."""
        if isinstance(pl_module, Task):
            with suppress(RuntimeError):  # of a GPU that failed
                pl_module.log_losses(wait=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss; look at the noted ones now and then."""
        loss = outputs.get("losses", outputs.get("loss")) if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            self._losses.append(loss.detach().reshape(-1))
            self._count += loss.numel()
        if self._count >= self.every_n_steps:
            self.check(trainer, wait=False)

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

    def check(self, trainer: Trainer, wait: bool = True) -> None:
        """Raise UserError if a noted loss is not finite; forget them otherwise.

        Told not to wait, it leaves those that are on their way to the next time.
        """
        if self._losses:
            losses = torch.cat(self._losses)
            self._losses, self._count, self._unseen = [], 0, self._unseen + len(losses)
            self._copies.add(losses, partial(self._look, trainer))
        self._copies.use_arrived(wait)

    def _look(self, trainer: Trainer, losses: Tensor) -> None:
        self._unseen -= len(losses)
        wrong = (~losses.isfinite()).nonzero().flatten().tolist()
        if not wrong:
            return
        later = len(losses) - 1 - wrong[0] + self._unseen
        ago = later // trainer.accumulate_grad_batches
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
