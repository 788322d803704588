"""See before the first epoch whether what is monitored is logged at all."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from experiments.errors import UserError


class Monitored(Callback):
    """Raises UserError when the validation batches before training do not log ``monitor``.

    For a LightningModule of one's own, which nothing but its steps says the metrics of; it has Lightning run one
    validation batch before training.
    """

    handles_batch_lists = True

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for a batch, where none was asked for."""
        if stage == "fit" and trainer.num_sanity_val_steps == 0:
            trainer.num_sanity_val_steps = 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the batch has logged."""
        logged = [name for name in trainer.callback_metrics if not name.startswith("train/")]
        if trainer.sanity_checking and self.monitor not in logged:
            raise UserError(
                f"monitor={self.monitor}: {type(pl_module).__name__} does not log it in validation. Type "
                f"{' or '.join(f'monitor={name}' for name in logged) or 'callbacks.best_checkpoint=null'}"
            )
