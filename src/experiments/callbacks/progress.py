"""Progress: a bar on a terminal, one line an epoch everywhere."""

import logging
import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

log = logging.getLogger(__name__)
EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


class Progress(TQDMProgressBar):
    """Lightning's bar where there is a terminal, and one line an epoch that stays.

    Under redirection and in CI there is no bar, so logs hold one line an epoch and nothing else.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate if sys.stderr.isatty() else 0)
        self._epoch_started = 0.0
        self._best: float | None = None

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Close the line of the epoch before: only now are all its values logged."""
        super().on_train_epoch_start(trainer, *args)
        if self._epoch_started:
            self._say(trainer, trainer.current_epoch)
        self._epoch_started = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run may start in the middle of an epoch."""
        super().on_train_start(trainer, pl_module)
        if trainer.fit_loop.is_resuming:
            self._epoch_started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """The best validation accuracy so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self._best = state_dict["best"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the last epoch's line."""
        super().on_train_end(trainer, pl_module)
        if self._epoch_started:
            self._say(trainer, trainer.current_epoch)
        self._epoch_started = 0.0

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """The bar's metrics, without Lightning's version number."""
        return {name: value for name, value in super().get_metrics(*args).items() if name != "v_num"}

    def _say(self, trainer: Trainer, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = [f"{name} {values[name]:.4f}" for name in EPOCH_METRICS if name in values]
        if "val/accuracy" in values:
            self._best = max(values["val/accuracy"], self._best or 0.0)
            shown.append(f"best {self._best:.4f}")
        seconds = time.perf_counter() - self._epoch_started
        log.info("epoch %s/%s  %s  %.1f s", epoch, trainer.max_epochs, "  ".join(shown), seconds)
