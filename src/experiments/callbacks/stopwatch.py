"""How long training takes."""

import math
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Stopwatch(Callback):
    """Seconds of training with validation, without set-up and test; goes on counting in a resumed run."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started = math.nan
        self.seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far."""
        return {"seconds": self._before + time.perf_counter() - self._started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._before = state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self._started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.seconds = self._before + time.perf_counter() - self._started
