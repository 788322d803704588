"""Averaged weights."""

import logging
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn

from experiments.learning.schedulers import total_steps

log = logging.getLogger(__name__)


class KeptAverage(WeightAveraging):
    """An average of the weights that is validated and kept once it exists, and tested as it was kept.

    A checkpoint's ``state_dict`` holds the average, or the network itself until there is one; what training continues
    from stands beside it. Lightning 2.6 validates and keeps an average that was never updated, and tests the network
    instead of the average.
    """

    @property
    def exists(self) -> bool:
        """Whether the average was updated since training began."""
        return self._average_model is not None and bool(self._average_model.n_averaged)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell if the run ends before the average begins."""
        super().on_train_start(trainer, pl_module)
        begin = getattr(self, "update_starting_at_step", None)
        if begin and (trainer.max_steps > 0 or (trainer.max_epochs or -1) > 0) and begin >= total_steps(trainer):
            log.warning("no weights are averaged: the run ends before update_starting_at_step=%d", begin)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the average, if there is one."""
        if self.exists:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the network itself."""
        if self.exists:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the network."""
        if self.exists:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the average, if there is one, and what training continues from."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._average_model is not None and not self.exists:
            checkpoint["state_dict"] = checkpoint["current_model_state"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up both where training resumes, and leave the average where it does not."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class AveragedWeights(KeptAverage, EMAWeightAveraging):
    """An exponential moving average of the weights: what Lightning's takes, tested as it was kept."""


def kept_average(callback: Callback) -> Callback:
    """The callback; one that averages weights in Lightning's way becomes a ``KeptAverage`` of the same name."""
    kind = type(callback)
    if isinstance(callback, WeightAveraging) and not isinstance(callback, KeptAverage):
        callback.__class__ = type(kind.__name__, (KeptAverage, kind), {"__module__": kind.__module__})
    return callback
