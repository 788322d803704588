"""Averaged weights."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn


class AveragedWeights(EMAWeightAveraging):
    """Lightning's moving average of the weights, which it validates and keeps, and tested as it was kept.

    A checkpoint's ``state_dict`` holds the average; what training goes on from stands beside it. Lightning 2.6 loads
    the latter also for testing the best checkpoint.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up both where training resumes, and leave the average where it does not."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
